//! Every cause of a refusal, as in logs and `explain`. The set is closed, so docs/faults.md lists all of them.
use std::fmt;

use wire::check::StoreError;

use crate::reject::RejectReason;

/// Declares [`Cause`]: under each reason its causes, each with its log text and advice. `docs/faults.md` is generated
/// from this table.
macro_rules! causes {
    ($($fault:ident { $($name:ident = $text:literal, $advice:literal;)+ })+) => {
        /// The exact cause. For logs and `explain` only: it would help to forge a better token.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause {
            $($($name,)+)+
        }

        impl Cause {
            pub const ALL: &'static [Cause] = &[$($(Cause::$name,)+)+];

            /// The reason that clients see.
            pub const fn reason(self) -> RejectReason {
                match self { $($(Cause::$name => RejectReason::$fault,)+)+ }
            }

            /// The constant log text; the variable part is in the rejection's detail.
            pub const fn text(self) -> &'static str {
                match self { $($(Cause::$name => $text,)+)+ }
            }

            /// What it means and what to do, for `docs/faults.md`.
            pub const fn advice(self) -> &'static str {
                match self { $($(Cause::$name => $advice,)+)+ }
            }
        }
    };
}

causes! {
    TokenMissing {
        NoToken = "no source has a token",
            "None of the places in `tokens` has one. A header with another scheme counts as none.";
    }
    TokenMalformed {
        TokenEmpty = "the token is empty",
            "The token has no byte.";
        SourceEmpty = "the place of the token is empty",
            "The header, cookie or parameter is there and holds nothing, or its scheme is not followed by one space and a token.";
        TokenCharacters = "the token has characters that no token has",
            "Spaces, quotes, commas, backslashes or bytes beyond ASCII. Often something was pasted with its quotes.";
        TokenPercentEncoded = "the token is percent-encoded",
            "A token in the query needs no encoding, and an encoded one could be read in two ways.";
        TokenNotAscii = "the token is not ASCII",
            "A JWT has characters of base64url and dots only.";
        TooFewSegments = "the token has fewer than three segments",
            "It is no JWT. Perhaps it is an opaque token whose form fits no `introspection.format` of the rule's issuers.";
        TooManySegments = "the token has more than three segments",
            "It is not a JWT.";
        TokenEncrypted = "the token is encrypted (five segments)",
            "JWEs are not supported: let the issuer sign tokens and not encrypt them.";
        HeaderEmpty = "the header is empty",
            "The first segment has no characters.";
        PayloadEmpty = "the payload is empty",
            "The second segment has no characters: a detached payload is not accepted.";
        SignatureEmpty = "the signature is empty",
            "The third segment has no characters: an unsigned token, or a truncated one.";
        HeaderNotBase64 = "the header is not canonical base64url",
            "Padding, another alphabet, or bits at the end that are not zero. See `padded` for issuers that pad.";
        PayloadNotBase64 = "the payload is not canonical base64url",
            "As with the header.";
        SignatureNotBase64 = "the signature is not canonical base64url",
            "As with the header. Often the end of the token was cut off.";
        PaddingUnexpected = "padding although the issuer does not pad, or no padding although it does",
            "Compare the issuer's `padded` with its tokens.";
        HeaderNotJson = "the header is not JSON",
            "Not JSON, not UTF-8, or a number out of range.";
        PayloadNotJson = "the payload is not JSON",
            "Not JSON, not UTF-8, or a number out of range.";
        HeaderDuplicate = "the header has a duplicate member in one object",
            "Two readers could read different ones.";
        PayloadDuplicate = "the payload has a duplicate member in one object",
            "Two readers could read different ones.";
        HeaderNotObject = "the header is not a JSON object",
            "It is not a JWT.";
        PayloadNotObject = "the payload is not a JSON object",
            "It is not a JWT: the signed content is something else.";
        AlgMissing = "the header has no alg",
            "A JWT names its algorithm (RFC 7515 section 4.1.1).";
        AlgNotString = "the header's alg is not a string",
            "The issuer does not follow RFC 7515.";
        KidNotString = "the header's kid is not a string",
            "The issuer does not follow RFC 7515.";
        TypNotString = "the header's typ is not a string",
            "The issuer does not follow RFC 7515.";
        CtyNotString = "the header's cty is not a string",
            "The issuer does not follow RFC 7515.";
        KidTooLong = "the header's kid is too long",
            "More than 256 bytes are not looked up.";
        TokenNested = "the token contains a nested token (cty)",
            "The signed content is another token. Let the issuer sign claims.";
        HeaderCrit = "the header has crit",
            "It requires an extension, and none is supported (RFC 7515 section 4.1.11).";
        HeaderB64 = "the header has b64",
            "An unencoded payload (RFC 7797) is not accepted.";
        HeaderZip = "the header has zip",
            "A compressed token is not accepted.";
        HeaderEnc = "the header has enc",
            "The token says that it is encrypted.";
        ChunkMissing = "a chunk of the token is missing",
            "The chunks of a token do not count up from 0 without a gap. Perhaps the browser dropped one: check the size of all cookies.";
        ChunkMisspelt = "a chunk's name has more than one reading",
            "The number in the name of a cookie with a chunk has leading zeros or another separator.";
        ChunkBehindComma = "a chunk follows a comma",
            "Some backends start another cookie at a comma. Look for a proxy that joins cookies with commas.";
        SubprotocolWithoutHandshake = "a subprotocol contains a token, but the request opens no WebSocket",
            "`Sec-WebSocket-Protocol` counts in the opening handshake of a WebSocket only.";
        SubprotocolAlone = "there is no subprotocol beside the token for the server to choose",
            "The client has to offer one that names the application's protocol too.";
        SubprotocolNotBase64 = "the token in a subprotocol is not canonical base64url",
            "Compare the `encoding` of the source with what the client writes.";
        TokenOpaque = "the token is opaque",
            "It contains no claims, and no server was asked about it.";
        ResponseNotObject = "the introspection response is not a JSON object",
            "The server's answer does not follow RFC 7662 section 2.2.";
    }
    TokenTooLong {
        TokenTooLong = "the token is longer than limits.token_bytes",
            "Compare the length of the issuer's tokens with `limits.token_bytes`.";
    }
    TokenTooDeep {
        HeaderTooDeep = "the header is nested more than 16 levels deep",
            "No issuer needs this.";
        PayloadTooDeep = "the payload is nested more than 16 levels deep",
            "Find the claim with `explain`.";
    }
    TokenTooManyMembers {
        HeaderTooManyMembers = "the header has an object of more than 1024 members",
            "No issuer needs this.";
        PayloadTooManyMembers = "the payload has an object of more than 1024 members",
            "Find the claim with `explain`.";
    }
    TokenAmbiguous {
        SeveralTokens = "there is more than one token",
            "Two of the places in `tokens` hold something, or one cookie or parameter is there twice.";
        HeaderTwice = "a header for tokens is there twice",
            "A backend could read the other one.";
        HeaderSeveralValues = "a header for tokens has several values",
            "Envoy joins headers of one name with a comma: probably the header was sent twice.";
    }
    OriginNotAllowed {
        OriginNotListed = "a cookie on an unsafe method or upgrade needs a listed Origin",
            "The `Origin` header is missing or not among the rule's `cookie_origins`.";
    }
    AlgNotAllowed {
        AlgNone = "the header's alg is none",
            "An unsigned token. It is never accepted.";
        AlgUnknown = "the header's alg is unknown",
            "The algorithm is none of those that `algorithms` can name.";
        AlgNotOfIssuer = "the issuer does not use this alg",
            "It is not among the issuer's `algorithms`.";
        AlgNotOfKey = "the token's alg is not its key's",
            "The issuer has a key of this id, and it is for another algorithm.";
    }
    KeyUnknown {
        KidUnknown = "no key has the token's kid",
            "`portcullis jwks` shows the ids that the issuer publishes, and which keys are left out and why.";
        NoKey = "the issuer has no key",
            "Its key set is empty, or none of its keys can be used: see `portcullis jwks`.";
    }
    SigMismatch {
        SignatureMismatch = "no key of the issuer verifies the signature",
            "The keys with this `kid` were tried.";
    }
    JwtExpired {
        ExpPassed = "exp has passed",
            "`exp` and the issuer's `skew` lie in the past.";
    }
    JwtNotYetValid {
        NotYetValid = "nbf, iat or auth_time lies in the future",
            "Compare the clocks of the issuer and of Envoy's host.";
    }
    JwtTooLongLived {
        TooLongLived = "the time from its issue to exp is over max_lifetime",
            "Counted from `iat`, else from `auth_time`. Have the issuer grant shorter tokens.";
        LoginTooOld = "auth_time is longer ago than max_session",
            "The user has to log in anew, however young the token is.";
    }
    InvalidIssuer {
        IssMissing = "iss is missing",
            "A token without `iss` belongs to no issuer of the configuration.";
        IssNotString = "iss is not a string",
            "It is no JWT of an issuer that follows RFC 7519.";
        IssUnknown = "iss is not configured",
            "No entry of `issuers` has this `issuer`, byte by byte.";
        IssNotOfRule = "the rule does not accept this issuer",
            "It is not among the rule's `issuers`.";
        IssOfAnother = "the introspected token is of another issuer",
            "The server says another `iss` than the issuer that it was asked for.";
    }
    InvalidAudience {
        AudMissing = "aud is missing",
            "The issuer's `audiences` are compared with it. Have the issuer add one, or write `audiences: any`.";
        AudMemberNotString = "a member of aud is not a string",
            "It is no JWT of an issuer that follows RFC 7519.";
        AudNotStrings = "aud is neither a string nor an array",
            "It is no JWT of an issuer that follows RFC 7519.";
        AudOfOthers = "aud names nobody here",
            "None of its values is among the issuer's `audiences`.";
    }
    InvalidClaim {
        HeaderMemberNotRequired = "a member of the header is not what required_header says",
            "The log's detail names the member.";
        TypNotAccepted = "the header's typ is not accepted",
            "Compare it with the issuer's `types`. An ID token, or a token of another kind, is no access token.";
        NotAccessToken = "a claim says that the token is not an access token",
            "The log's detail names it. A refresh token looks like this; for another word of your issuer's see `access_types`.";
        KindRefused = "the token is of a kind that token_kinds has not",
            "The log's detail says which kind and by what. Often a client sends its ID token in the place of the access token.";
        SecurityEvent = "the token is a logout token or another security event",
            "It has `events`: it is for a service that receives logouts, and never an access token.";
        ClaimMissing = "a claim that the issuer requires is missing",
            "The log's detail names it: see `required_claims`.";
        ClaimNotString = "a claim is not a string",
            "The log's detail names it.";
        ClaimNotHeader = "a claim cannot be a header value",
            "The log's detail names it. Forward it with `encoding: base64url`.";
        ExpMissing = "exp is missing",
            "A token that never expires is not accepted.";
        TimeNegative = "a time is negative",
            "The log's detail names the claim.";
        TimeTooLarge = "a time is too large",
            "The log's detail names the claim. Often milliseconds instead of seconds.";
        TimeNotNumber = "a time is not a number",
            "The log's detail names the claim. A time in quotes is not accepted (RFC 7519 section 2).";
        ScopeNotStrings = "the scope claim is neither a string nor an array of strings",
            "`scope` or `scp` has another type.";
        CnfNotObject = "cnf is not an object",
            "The issuer does not follow RFC 7800.";
        AddressNotStrings = "the address claim is neither a string nor an array",
            "See `binding.address`.";
        AddressMemberNotString = "the address claim has a member that is not a string",
            "See `binding.address`.";
        AddressNotCidr = "the address claim contains a value that is not an address or CIDR",
            "See `binding.address`.";
        AgentNotString = "the user agent claim is not a string",
            "See `binding.user_agent`.";
        IssuedUnknown = "auth_time and iat are missing, and revocation needs one of them",
            "Let the issuer add `iat`, or set `revocation: off` for the rule.";
        AnswerContradicts = "the introspection answer contradicts the token",
            "The log's detail names the claim. The server answered about another token: check its cluster, and caches before it.";
    }
    ScopeInsufficient {
        ScopeMissing = "the token lacks a scope that the rule requires",
            "Compare the rule's `scopes` with `scope` or `scp` of the token.";
    }
    ClaimInsufficient {
        NothingToRevoke = "the token has none of the claims that a revocation could name",
            "Let the issuer add `jti`, `sid` or `sub`, or name other kinds in `revocation.kinds`.";
        ClaimRefusedByRule = "a claim is not what the rule requires",
            "The log's detail names it: see the rule's `claims`.";
        NotRevocable = "the token cannot be revoked by a kind that the rule requires",
            "The log's detail names the kind: the token has none of the claims for it. See the rule's `revocable_by`.";
    }
    StepUpRequired {
        AcrMissing = "acr is missing",
            "The rule's `step_up.acr_values` are compared with it. Have the issuer add it to the token.";
        AcrNotAccepted = "acr is none of the values that the rule accepts",
            "The user logged in another way: see the rule's `step_up.acr_values`.";
        LoginTimeMissing = "auth_time is missing",
            "The rule's `step_up.max_age` is counted from it. Have the issuer add it to the token.";
        LoginNotRecent = "auth_time is longer ago than the rule's max_age",
            "The user has to log in again: see the rule's `step_up.max_age`.";
    }
    StepUpDemanded {
        LoginDemanded = "the service demands a login of this session, and auth_time is missing, is before the demand, or comes with an acr that is not accepted",
            "`portcullis revoke list --kind step_up` shows the demands; `portcullis revoke lift` undoes one.";
    }
    SessionRevoked {
        Revoked = "the service says that it was revoked",
            "`portcullis revoke list` shows the caller.";
    }
    SessionUnknown {
        NotActive = "the introspection server says that it is not active",
            "It expired, was revoked, or the server does not tell this client about such tokens.";
    }
    BindingMismatch {
        CnfUnchecked = "cnf has a member that this rule does not check",
            "The token is bound to something other than a certificate, or the rule has no `binding.certificate`.";
        CnfEmpty = "cnf is empty",
            "The token names nothing that it is bound to.";
        NoCertificateClaim = "the token is bound to no certificate",
            "`binding.certificate` requires it.";
        NoAddressClaim = "the token is bound to no address",
            "`binding.address` requires it.";
        NoAgentClaim = "the token is bound to no user agent",
            "`binding.user_agent` requires it.";
        NoBindingClaim = "the token has no such claim",
            "The rule requires a binding that the token does not have.";
        NoClientCertificate = "the client presented no certificate",
            "The listener must request client certificates.";
        HopNotTrusted = "the request does not come from the trusted hop",
            "`binding.certificate.forwarded_by` is not the URI in the certificate of the connection.";
        CertificateNotForwarded = "the trusted hop names no client certificate",
            "X-Forwarded-Client-Cert has no element of the hop: see `forward_client_cert_details` here and there.";
        ForwardedCertificateUnreadable = "X-Forwarded-Client-Cert cannot be read",
            "A quote is not around a whole value, or the hop's element has not exactly one Hash.";
        CertificateUnreadable = "the host's certificate digest is not SHA-256 in hexadecimal",
            "Envoy gave an unexpected digest.";
        ThumbprintUnreadable = "the claim is not a SHA-256 in base64url",
            "The issuer encodes the claim differently.";
        OtherCertificate = "the client's certificate is another",
            "The token was issued to the owner of another certificate.";
        NoUserAgent = "there is not exactly one User-Agent",
            "The client sends none, or several.";
        OtherUserAgent = "the client's User-Agent is another",
            "The token was issued to another browser, or the browser was updated.";
        OtherAddress = "the client's address is not among the claim's",
            "A change of network, or a proxy's address is taken for the client's: see `xff_num_trusted_hops`, or `client_address`.";
        AddressUnknown = "the client's address is unknown",
            "Envoy gives no address, for example for a Unix socket; or X-Forwarded-For has fewer entries than `client_address.forwarded_for`, or no address there.";
    }
    DpopBindingMismatch {
        BoundUnderBearer = "the token is bound to a key and came as a bearer token",
            "A bound token counts only as `Authorization: DPoP`, with a proof.";
        UnboundUnderDpop = "the token is bound to no key and came under the scheme DPoP",
            "It has no `cnf.jkt`: the issuer did not bind it.";
        ProofOfUnbound = "there is a proof, and the token is bound to no key",
            "The client proves a key that the issuer does not know: it should have got a bound token.";
        ProofOfOtherKey = "the proof's key is not the one that the token is bound to",
            "`cnf.jkt` is the RFC 7638 thumbprint of another key. The token was stolen, or the client made a new key.";
        BoundTokenRequired = "the rule requires a token that is bound to a key",
            "See the rule's `dpop.required`.";
        JktUnreadable = "cnf.jkt is not a SHA-256 in base64url",
            "The issuer does not follow RFC 9449 section 6.1.";
    }
    DpopProofInvalid {
        ProofMissing = "there is no proof",
            "The token came under the scheme `DPoP`, without the header `DPoP`.";
        ProofTwice = "there is more than one proof",
            "The header `DPoP` is there twice, or has a comma.";
        ProofTooLong = "the proof is too long",
            "More than 8192 bytes are not read.";
        ProofMalformed = "the proof is not a JWT of the type dpop+jwt",
            "The log's detail says what is wrong.";
        ProofAlg = "the proof's alg is not allowed, or not its key's",
            "See `dpop.algorithms`. A symmetric algorithm is never allowed.";
        ProofJwk = "the proof's key cannot be used",
            "The log's detail says why. The header must have the public key as `jwk`, and no other way to name a key.";
        ProofClaim = "a claim of the proof is missing or has the wrong form",
            "The log's detail names it: `jti`, `htm`, `htu` and `iat` are required.";
        ProofSignature = "the proof's signature does not match its key",
            "The proof was changed, or made by a client without the private key.";
        ProofHtm = "htm is not the request's method",
            "A proof of another request.";
        ProofHtu = "htu is not the request's URI",
            "A proof of another request, or `dpop.origins` is not what clients use. Query and fragment do not count.";
        ProofNoOrigin = "no origin of the configuration has the request's host",
            "Add it to `dpop.origins`.";
        ProofOld = "the proof is too old",
            "`iat` is longer ago than `dpop.max_age`, or `exp` has passed. Compare the clocks of client and proxy.";
        ProofFuture = "the proof is of the future",
            "`iat` or `nbf` lies beyond `dpop.future_iat_tolerance`. Compare the clocks of client and proxy.";
        ProofAth = "ath is not the hash of the token",
            "A proof for another token, or `ath` is missing.";
    }
    DpopProofReplayed {
        ProofReplayed = "the proof was used before",
            "Its key and `jti` were seen while it still counts.";
    }
    DpopNonceRequired {
        NonceMissing = "the proof has no nonce",
            "The client takes it from `DPoP-Nonce` of this answer.";
        NonceOld = "the proof's nonce has expired",
            "The client takes the next one from `DPoP-Nonce` of this answer.";
        NonceForeign = "the proof's nonce is not of ours for this key",
            "It was given to another key, by another server, or by a proxy with another secret.";
    }
    RouteUnmatched {
        NoRule = "no rule matches the method, path and host",
            "Run `explain` with method, path and host.";
        Connect = "CONNECT is never admitted",
            "It asks for a tunnel.";
        RouteRuleUnknown = "the route selects a rule that the configuration does not have",
            "Correct `rule` in the route's configuration, or add a rule of this name with `for_routes`.";
        RouteChanged = "the request's route changed after its rule was chosen",
            "A header that the filter removed or set made Envoy choose a route with another rule. Let such routes not match headers that the filter sets.";
        RuleGone = "the rule is gone",
            "Report it: the configuration cannot change under a request.";
    }
    PathSuspicious {
        PathNotAbsolute = "the path does not begin with a slash",
            "`OPTIONS *` looks like this too.";
        QueryCharacters = "the query has a control character, a space or #",
            "They end or break a request line.";
        PathControl = "the path has a control character or a space",
            "They end or break a request line.";
        PathNotAscii = "the path has a byte that is not ASCII",
            "The client has to percent-encode it.";
        PathBackslash = "the path has a backslash",
            "Some backends read it as a slash.";
        PathSemicolon = "the path has a semicolon, where some backends end a segment",
            "Matrix parameters and `;jsessionid=` are not accepted.";
        PathHash = "the path has #",
            "A fragment is never sent by browsers.";
        PathBrokenPercent = "the path has a % without two hexadecimal digits",
            "The client has to write %25 for a percent sign, which is refused here too.";
        PathNeedlesslyEncoded = "the path encodes a character that needs no encoding",
            "Let Envoy's `normalize_path` decode it.";
        PathEncodedDivider = "the path encodes a character that divides paths",
            "Backends read an encoded slash and similar characters in two ways.";
        PathEncodedControl = "the path encodes a control character",
            "A null byte and similar characters end a path in some backends.";
        PathNotUtf8 = "the path encodes something that is not UTF-8",
            "Backends repair it in different ways.";
        PathDoubleSlash = "the path has two slashes together",
            "Set Envoy's `merge_slashes`.";
        PathDotSegment = "the path has a dot segment",
            "Set Envoy's `normalize_path`.";
    }
    RequestMalformed {
        HeadersUnreadable = "the header map cannot be read",
            "The host gave a malformed header map.";
        HeaderUnchangeable = "a header cannot be changed",
            "The host refused to remove or set a header that must not be forwarded unchanged.";
        TokenUnremovable = "a token cannot be removed",
            "The host refused to remove it, and it must not reach the upstream.";
        TooManyHeaders = "too many headers",
            "More than 256 are not read.";
        PseudoHeaderUnknown = "a pseudo header is unknown",
            "HTTP/2 defines no such header.";
        HeaderNameEmpty = "a header has no name",
            "HTTP does not allow this.";
        HostOddNumber = "the host ends in a number, and is not an IPv4 address of four decimal numbers",
            "Some resolvers read `127.1`, `0x7f.1` or `2130706433` as an address.";
        HostBesideAuthority = "host beside :authority",
            "The backend could use the other one.";
        PseudoHeaderRepeated = "a pseudo header is repeated",
            "The backend could use the other one.";
        MethodMissing = ":method is missing",
            "The host gave a request without a method.";
        MethodCharacters = "the method has characters other than A-Z 0-9 - _",
            "`delete` is not DELETE, but many backends treat it as DELETE.";
        PathMissing = ":path is missing",
            "Only CONNECT may lack it.";
        AuthorityMissing = ":authority is missing",
            "HTTP/1.0 without Host looks like this.";
        AuthorityPort = "the authority's port is not a number up to 65535",
            "Look at the client, or at a proxy that rewrites the host.";
        AuthorityUserInformation = "the authority has user information",
            "`user@host` could be read as another host.";
        AuthorityBracket = "the authority has an open bracket",
            "An IPv6 address without its closing bracket.";
        HostNotIpv6 = "the host is not an IPv6 address",
            "The brackets do not contain an address.";
        HostTooLong = "the host is too long",
            "A DNS name has at most 253 characters.";
        HostEmpty = "the host, or a label of it, is empty",
            "Look at the client, or at a proxy that rewrites the host.";
        HostCharacters = "the host has a character that no DNS name has",
            "Names beyond ASCII are sent in their `xn--` form.";
    }
    RedisConnRefused {
        RedisRefused = "Redis refused the service",
            "Redis is down, moved, or does not accept the service's credentials: see the service's log.";
    }
    SessionStoreLatency {
        RedisSlow = "Redis answers too slowly",
            "Look at Redis's load, slow log and disk.";
        AnswerLate = "the answer came too late to count",
            "It was older than `revocation.freshness` when it arrived: look at the latency between Envoy and the service.";
    }
    StoreUnavailable {
        NoTime = "the host gives no time",
            "Report it with the version of Envoy.";
        NoRandomness = "the host gives no random bytes",
            "They are needed for the nonce of a content security policy. Report it with the version of Envoy.";
        HeaderUnwritable = "the host did not set a header",
            "A request must not go on with only some headers set. Check Envoy's limits for headers.";
        NoService = "there is no service to ask",
            "Report it: a rule that checks revocations cannot exist without `revocation`.";
        ProofsFull = "too many proofs were used to remember one more",
            "More proofs than `dpop.remembered_proofs` allows came within `dpop.max_age`. Raise it, or limit the rate of each client.";
        ProofsUnreachable = "the memory of used proofs cannot be read or written",
            "Report it with the version of Envoy.";
        ClaimFailed = "the service cannot tell whether the proof was used before",
            "Its store did not answer: see the service's log.";
        ClaimUnanswered = "no answer whether the proof was used before",
            "The service is down, unreachable, or slower than `revocation.timeout`.";
        ChecksFull = "too many requests wait already",
            "More requests wait for the service than `limits.waiting_requests`: it is slow, or the bound is too low.";
        StreamsFull = "too many streams are open already",
            "`limits.open_streams` requests and streams of rules with `streams` are open, or one token has a quarter of them.";
        CheckNotSent = "the check could not be sent",
            "The cluster in `revocation.cluster` is unknown, has no endpoint, or is at its limits.";
        CheckUnanswered = "the service does not answer",
            "It is down, unreachable, or slower than `revocation.timeout`.";
        CheckTimeout = "no answer within the timeout",
            "The service is slower than `revocation.timeout`.";
        CheckUnproven = "the answer is not proved to be the service's",
            "Another server answers, or the secrets of filter and service differ.";
        CheckMismatch = "the answers do not fit the check",
            "Versions of filter and service may differ.";
        RedisFailed = "Redis answers with an error",
            "See the service's log.";
        StoreNotOurs = "the store is not ours",
            "Redis, or the file of the store, was emptied or replaced: docs/operations.md has the steps.";
        StoreUnsafe = "the store may lose revocations",
            "`maxmemory-policy` must be noeviction.";
        RetentionTooShort = "the service's retention is shorter than the tokens' lifetime",
            "Raise `--max-lifetime` of the service, or lower `max_lifetime` here.";
        ToleranceTooShort = "the service's future_iat_tolerance is less than ours",
            "Set `--future-iat-tolerance` and `revocation.future_iat_tolerance` to the same value.";
        ClockBehind = "the service's clock is behind ours",
            "Compare the clocks of both hosts.";
        RegionsBehind = "the service does not know the revocations of other regions that `revocation.regions` requires",
            "A region is cut off, or is not joined: see `regions` in the service's /readyz, and docs/regions.md.";
        IntrospectionNotSent = "the introspection request could not be sent",
            "The cluster in `introspection.cluster` is unknown, has no endpoint, or is at its limits.";
        IntrospectionUnanswered = "the introspection server does not answer",
            "It is down, unreachable, or slower than `introspection.timeout`.";
        IntrospectionTimeout = "no answer to the introspection within its timeout",
            "The server is slower than `introspection.timeout`.";
        IntrospectionClientRefused = "the introspection server does not accept the filter's client credentials",
            "Compare `client_id`, `client_auth` and the secret with the server's client. It may also lack the right to introspect.";
        IntrospectionServerError = "the introspection server answers with an error",
            "See the server's log.";
        IntrospectionStatus = "the introspection server answers with neither 200 nor an error of its own",
            "Often `introspection.path` is wrong.";
        IntrospectionNotJsonType = "the introspection server's answer is not application/json",
            "Often another page answers. A signed response (RFC 9701) is not supported.";
        IntrospectionTooLong = "the introspection server's answer is too long",
            "More than 32 KiB are not read.";
        IntrospectionNotJson = "the introspection server's answer is not JSON",
            "Not JSON, not UTF-8, or a number out of range.";
        IntrospectionDuplicate = "the introspection server's answer has a duplicate member in one object",
            "Two readers could read different ones.";
        IntrospectionTooDeep = "the introspection server's answer is nested too deeply",
            "More than 16 levels are not read.";
        IntrospectionTooManyMembers = "the introspection server's answer has too many members",
            "More than 1024 in one object are not read.";
        IntrospectionNotObject = "the introspection server's answer is not a JSON object",
            "RFC 7662 section 2.2 requires one.";
        IntrospectionNoActive = "the introspection server's answer has no boolean `active`",
            "RFC 7662 section 2.2 requires a boolean, not a string or a number.";
        IntrospectionNotUnderstood = "the introspection server's answer cannot be read",
            "Its body is incomplete, or the host did not return it.";
        IntrospectionsFull = "too many tokens already wait for introspection",
            "More requests wait than `limits.waiting_requests`: the server is slow, or the bound is too low.";
    }
    KeysUnavailable {
        KeysNeverFetched = "the issuer's keys were never fetched",
            "The lines `keys not fetched` in the log say why.";
        KeysTooOld = "the issuer's keys are older than max_stale",
            "No fetch succeeded for `max_stale`: the lines `keys not fetched` in the log say why.";
    }
}

/// The service's own reason.
impl From<StoreError> for Cause {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::StoreRefused => Cause::RedisRefused,
            StoreError::StoreSlow => Cause::RedisSlow,
            StoreError::StoreFailed => Cause::RedisFailed,
            StoreError::StoreChanged => Cause::StoreNotOurs,
            StoreError::StoreUnsafe => Cause::StoreUnsafe,
            StoreError::RetentionTooShort => Cause::RetentionTooShort,
            StoreError::ToleranceTooShort => Cause::ToleranceTooShort,
            StoreError::ClockBehind => Cause::ClockBehind,
            StoreError::RegionsBehind => Cause::RegionsBehind,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests;
