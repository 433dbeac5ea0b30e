//! Claims of many values, and changes to a token after it was signed.
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{ManyForm, ManySpec, Then};

impl ManySpec {
    pub(crate) fn value(&self) -> Value {
        let values = (0..self.count).map(|at| format!("{at:0>width$}", width = self.length));
        match self.form {
            ManyForm::Array => values.map(Value::String).collect(),
            ManyForm::Object => Value::Object(values.map(|name| (name, json!(0))).collect()),
        }
    }
}

impl Then {
    pub(crate) fn apply(&self, token: &str) -> Result<String> {
        let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        let [header, payload, signature] = parts.as_mut_slice() else { bail!("`then` needs a token of three parts") };
        match self {
            Then::Append(text) => signature.push_str(text),
            Then::Signature(text) => *signature = text.clone(),
            Then::Payload(text) => *payload = text.clone(),
            Then::HeaderText(text) => *header = mint::to_base64url(text.as_bytes()),
            Then::FlipSignatureBit(at) => {
                let mut bytes = mint::from_base64url(signature).context("the signature is not base64url")?;
                *bytes.get_mut(*at).context("the signature is shorter")? ^= 1;
                *signature = mint::to_base64url(&bytes);
            }
            Then::LooseSignatureBits(_) => {
                let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                if signature.len() % 4 == 0 {
                    bail!("a signature of this length has no unused bits");
                }
                let last = signature.pop().context("no signature")?;
                let value = alphabet.find(last).context("not base64url")?;
                signature.push(alphabet.as_bytes()[value | 1] as char);
            }
        }
        Ok(parts.join("."))
    }
}
