//! `portcullis mint`: keys and signed tokens for tests and the demo. It sends no requests, and the service never uses
//! it.
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::mint::{Alg, Proof, SigningKey};
use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

#[derive(clap::Args)]
pub struct MintArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Create a key. The private half goes into a file that only you can read, the public half (a JWK) to standard
    /// output.
    Key(KeyArgs),
    /// Sign tokens, one per line.
    Token(TokenArgs),
    /// Make a DPoP proof (RFC 9449) for one request.
    Proof(ProofArgs),
}

#[derive(clap::Args)]
struct KeyArgs {
    /// HS256 to HS512, RS256 to RS512, PS256 to PS512, ES256, ES384, ES512 or EdDSA.
    #[arg(long)]
    alg: Alg,
    /// The file for the private key: PKCS#8 in PEM; for HS256 to HS512, the secret in base64url. It must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The key id. Default: the file's name without its extension.
    #[arg(long)]
    kid: Option<String>,
    /// The size of an RSA key in bits: 2048, 3072, 4096 or 8192.
    #[arg(long, default_value_t = 2048)]
    bits: usize,
    /// One JSON document: `{"kid", "alg", "file", "jwk", "pem", "thumbprint"}`. `cnf.jkt` of tokens that are bound to the
    /// key is its thumbprint.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct TokenArgs {
    /// A file written by `portcullis mint key`, or any private key in PKCS#8 and PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[arg(long)]
    alg: Alg,
    /// The key id in the header. Default: the file's name without its extension.
    #[arg(long)]
    kid: Option<String>,
    /// Leave `kid` out of the header.
    #[arg(long, conflicts_with = "kid")]
    no_kid: bool,
    /// A JSON object. Its members override the options below.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    claims: String,
    #[arg(long)]
    iss: Option<String>,
    #[arg(long)]
    sub: Option<String>,
    /// Repeatable.
    #[arg(long)]
    aud: Vec<String>,
    #[arg(long)]
    sid: Option<String>,
    /// The time from now to `exp`: 30s, 10m, 24h, 7d. With a minus (`--lifetime=-1m`), the token has already expired.
    #[arg(long, default_value = "10m", value_parser = lifetime, allow_hyphen_values = true)]
    lifetime: Lifetime,
    /// The token's id, or `auto` for a new one per token, or `none`.
    #[arg(long, default_value = "auto")]
    jti: String,
    /// The number of tokens.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// One JSON document per token: `{"token", "header", "claims"}`.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ProofArgs {
    /// A file written by `portcullis mint key`, or any private key in PKCS#8 and PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[arg(long)]
    alg: Alg,
    /// The URL of the request, as the client uses it.
    #[arg(long)]
    url: String,
    #[arg(long, default_value = "GET")]
    method: String,
    /// The access token that the proof goes with. Without it, the proof is for a token request.
    #[arg(long)]
    token: Option<String>,
    /// From the header `DPoP-Nonce` of the server's last answer.
    #[arg(long)]
    nonce: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Ahead(Duration),
    Past(Duration),
}

/// # Errors
/// A file that cannot be read or written, a key that does not fit the algorithm, claims that are not a JSON object.
pub fn run(args: MintArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match args.what {
        What::Key(args) => key(&args, &mut out),
        What::Token(args) => tokens(&args, &mut out),
        What::Proof(args) => proof(&args, &mut out),
    }
}

fn key(args: &KeyArgs, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let kid = args.kid.clone().unwrap_or_else(|| stem(&args.out));
    let key = match args.alg {
        Alg::RS256 | Alg::RS384 | Alg::RS512 | Alg::PS256 | Alg::PS384 | Alg::PS512 => {
            SigningKey::generate_rsa(args.alg, &kid, args.bits)?
        }
        Alg::HS256 | Alg::HS384 | Alg::HS512 | Alg::ES256 | Alg::ES384 | Alg::ES512 | Alg::EdDSA => {
            SigningKey::generate(args.alg, &kid)
        }
    };
    let private = key.to_file_text()?;
    // `create_new`: the mode applies from the first byte, and no key is overwritten.
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.out)
        .and_then(|mut file| file.write_all(private.as_bytes()))
        .with_context(|| format!("writing {}", args.out.display()))?;

    let public = if args.alg.is_hmac() { None } else { Some((key.public_jwk()?, key.public_pem()?)) };
    if args.json {
        let (jwk, pem) = public.unzip();
        let file = args.out.display().to_string();
        // That of a secret would help to guess it.
        let thumbprint = jwk.as_ref().map(|_| key.thumbprint());
        let document = json!({
            "kid": kid, "alg": args.alg.name(), "file": file, "jwk": jwk, "pem": pem, "thumbprint": thumbprint,
        });
        writeln!(out, "{document}")?;
    } else if let Some((jwk, _)) = public {
        writeln!(out, "{}", Value::Object(jwk))?;
    } else {
        eprintln!("{}: a secret in base64url, for `secret_encoding: base64url`", args.out.display());
    }
    Ok(())
}

fn tokens(args: &TokenArgs, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let kid = if args.no_kid { None } else { Some(args.kid.clone().unwrap_or_else(|| stem(&args.key))) };
    let key = read_key(&args.key, args.alg, kid.as_deref())?;
    let now = now()?;
    let given = match serde_json::from_str(&args.claims).context("--claims is not JSON")? {
        Value::Object(given) => given,
        _ => bail!("--claims is not a JSON object"),
    };
    for _ in 0..args.count {
        let mut claims = options(args, now);
        claims.extend(given.clone());
        let claims = Value::Object(claims);
        let token = key.mint(&claims);
        if args.json {
            let mut header = json!({ "alg": args.alg.name(), "typ": "JWT" });
            if let Some(kid) = key.kid() {
                header["kid"] = json!(kid);
            }
            writeln!(out, "{}", json!({ "token": token, "header": header, "claims": claims }))?;
        } else {
            writeln!(out, "{token}")?;
        }
    }
    Ok(())
}

/// The claims from the options.
fn options(args: &TokenArgs, now: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, value) in [("iss", &args.iss), ("sub", &args.sub), ("sid", &args.sid)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), json!(value));
        }
    }
    match args.aud.as_slice() {
        [] => {}
        [one] => drop(claims.insert("aud".to_owned(), json!(one))),
        several => drop(claims.insert("aud".to_owned(), json!(several))),
    }
    let (iat, exp) = match args.lifetime {
        Lifetime::Ahead(lifetime) => (now, now.saturating_add(lifetime.as_secs())),
        // Issued as long before `exp` as `exp` is in the past: a token that was valid once.
        Lifetime::Past(ago) => (now.saturating_sub(ago.as_secs().saturating_mul(2)), now.saturating_sub(ago.as_secs())),
    };
    claims.insert("iat".to_owned(), json!(iat));
    claims.insert("exp".to_owned(), json!(exp));
    match args.jti.as_str() {
        "none" => {}
        "auto" => drop(claims.insert("jti".to_owned(), json!(::mint::random_id()))),
        given => drop(claims.insert("jti".to_owned(), json!(given))),
    }
    claims
}

fn proof(args: &ProofArgs, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    let key = read_key(&args.key, args.alg, None)?;
    let ProofArgs { url, method, token, nonce, .. } = args;
    let proof = Proof { method, url, token: token.as_deref(), nonce: nonce.as_deref(), iat: now()? };
    writeln!(out, "{}", key.prove(&proof)?)?;
    Ok(())
}

fn now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs())
}

fn read_key(file: &Path, alg: Alg, kid: Option<&str>) -> anyhow::Result<SigningKey> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    SigningKey::from_file_text(alg, kid, &text).with_context(|| file.display().to_string())
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    let (past, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let wrong = || format!("`{text}` is not a whole number and a unit, as in 30s, 10m, 24h, 7d");
    let (number, seconds) = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((digits.strip_suffix(unit)?, seconds)))
        .ok_or_else(wrong)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let duration = Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?);
    Ok(if past { Lifetime::Past(duration) } else { Lifetime::Ahead(duration) })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        mint: MintArgs,
    }

    fn run_into(arguments: &[&str]) -> anyhow::Result<String> {
        let cli = Cli::try_parse_from(std::iter::once(&"mint").chain(arguments))?;
        let mut out = Vec::new();
        match cli.mint.what {
            What::Key(args) => key(&args, &mut out)?,
            What::Token(args) => tokens(&args, &mut out)?,
            What::Proof(args) => proof(&args, &mut out)?,
        }
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn mints_tokens_with_a_key_that_it_made_and_overwrites_none() {
        let file = std::env::temp_dir().join(format!("portcullis-mint-{}.pem", std::process::id()));
        let path = file.to_str().unwrap();
        let make = ["key", "--alg", "ES256", "--out", path, "--kid", "k1"];
        let jwk: Value = serde_json::from_str(&run_into(&make).unwrap()).unwrap();
        assert_eq!((jwk["kid"].as_str(), jwk["crv"].as_str()), (Some("k1"), Some("P-256")));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(run_into(&make).is_err());

        let sign = ["token", "--key", path, "--alg", "ES256", "--kid", "k1", "--json", "--count", "2"];
        let more = ["--sub", "alice", "--aud", "a", "--aud", "b", "--lifetime=-1m", "--claims", r#"{"sub":"bob"}"#];
        let output = run_into(&[&sign[..], &more[..]].concat()).unwrap();
        let [first, second] =
            output.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>().try_into().unwrap();
        assert_eq!(first["header"], json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" }));
        let claims = &first["claims"];
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!("bob"), &json!(["a", "b"])));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        assert_ne!(claims["jti"], second["claims"]["jti"]);

        let prove = ["proof", "--key", path, "--alg", "ES256", "--url", "https://a.example/b?c=d", "--token", "t"];
        let proof = run_into(&[&prove[..], &["--nonce", "n"]].concat()).unwrap();
        let read = jose::dpop::Proof::parse(proof.trim().as_bytes(), &[Alg::ES256]).unwrap();
        assert_eq!((read.claims().htm.as_str(), read.claims().htu.as_str()), ("GET", "https://a.example/b"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn reads_lifetimes_and_refuses_the_rest() {
        assert_eq!(lifetime("10m"), Ok(Lifetime::Ahead(Duration::from_secs(600))));
        assert_eq!(lifetime("-1d"), Ok(Lifetime::Past(Duration::from_secs(86_400))));
        for bad in ["", "10", "m", "+1s", "1.5s", "é", "99999999999999999999d", "18446744073709551615d"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
