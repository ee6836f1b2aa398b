//! An OAuth client's secret becomes an auth key, as the tailscale command does it
//! (tailscale, feature/oauthkey/oauthkey.go): tailscaled itself knows auth keys only.
//!
//! Every buffer of ours that held the secret, the token or the key is zeroed. Those of the TLS
//! library are not ours: rustls frees the two answers as it decrypted them.
#![forbid(unsafe_code)]

mod api_connector;
mod attributes;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use self::api_connector::{ApiConnector, server_label};
use self::attributes::SecretAttributes;
use crate::http_client::{self, HttpClientError, HttpRequest};
use crate::secret::{BadSecret, Secret, redacted};

/// What such a secret begins with; an auth key begins with `tskey-auth-`.
const PREFIX: &str = "tskey-client-";

/// For both questions together.
const DEADLINE: Duration = Duration::from_secs(30);

/// Most of an answer's body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// Longest piece of the server's own words that is passed on.
const MAX_WORDS: usize = 300;

/// Why there is no auth key. It never carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum OauthError {
    /// The key would belong to nobody.
    #[error("an OAuth secret needs tags for the keys it makes: set tailnet.tags")]
    NoTags,
    /// An attribute behind the secret's `?` that means nothing.
    #[error(
        "the OAuth secret has an unknown attribute {name:?}: use ephemeral, preauthorized, baseURL"
    )]
    UnknownAttribute {
        /// Its name.
        name: String,
    },
    /// An attribute that is neither true nor false.
    #[error("the OAuth secret's attribute {name} is neither true nor false")]
    NotBool {
        /// Its name.
        name: &'static str,
    },
    /// A `baseURL` that cannot be asked.
    #[error("the OAuth secret's baseURL is no http or https URL of a server: correct it")]
    BadBase,
    /// A proxy that cannot be used.
    #[error("the proxy {proxy} cannot be used ({why}): correct tailnet.control_proxy")]
    BadProxy {
        /// Its host, or the whole of what is none.
        proxy: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No certificates to trust.
    #[error("the trusted certificates cannot be read ({0}): see SSL_CERT_FILE")]
    Roots(#[source] std::io::Error),
    /// The server cannot be talked to.
    #[error("{server} cannot be reached for an auth key ({why}): see the network and its proxy")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the network or TLS said.
        why: String,
    },
    /// The server does not answer as it should.
    #[error("{server} does not answer as Tailscale's API does ({what}): see the secret's baseURL")]
    Strange {
        /// Host and port.
        server: String,
        /// What is wrong with its answer.
        what: String,
    },
    /// The server refused.
    #[error(
        "{server} refused to {asked} ({status}: {words}): see the OAuth client's scopes and tags"
    )]
    Refused {
        /// Host and port.
        server: String,
        /// What was asked of it.
        asked: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        words: String,
    },
    /// What came is no key.
    #[error("the auth key made from the OAuth secret is none: {0}")]
    BadKey(#[source] BadSecret),
    /// It took too long.
    #[error("no auth key within {after:?}: see the network, and whether a proxy is needed")]
    Late {
        /// The deadline.
        after: Duration,
    },
}

impl OauthError {
    /// Whether asking again later may help, without anything being changed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// Whether this is an OAuth client's secret, which must be exchanged before a login.
pub fn is_client_secret(secret: &Secret) -> bool {
    secret.expose().starts_with(PREFIX)
}

/// Has an auth key made for a node with `tags`, good for one login; a secret that is no OAuth
/// client's is the key itself. `proxy` is an `http://` URL, by way of which every server not on this
/// host is asked.
///
/// # Errors
/// [`OauthError`], at the latest after 30 s.
pub async fn exchange_secret(
    secret: &Secret,
    tags: &[String],
    proxy: Option<&str>,
) -> Result<Secret, OauthError> {
    exchange_within(DEADLINE, secret, tags, proxy).await
}

async fn exchange_within(
    after: Duration,
    secret: &Secret,
    tags: &[String],
    proxy: Option<&str>,
) -> Result<Secret, OauthError> {
    if !is_client_secret(secret) {
        return Ok(secret.clone());
    }
    if tags.is_empty() {
        return Err(OauthError::NoTags);
    }
    let (credential, written) = split_attributes(secret);
    let attributes = attributes::parse_attributes(written)?;
    let api = ApiClient {
        connector: ApiConnector::new(&attributes.base, proxy)?,
        base: &attributes.base,
    };
    let asking = async {
        let answer = api.request_token(credential).await?;
        let token: TokenAnswer<'_> = serde_json::from_slice(&answer.body)
            .map_err(|_| api.unexpected_answer("its answer has no access token"))?;
        api.request_key(token.access_token, tags, &attributes).await
    };
    tokio::time::timeout(after, Box::pin(asking)).await.unwrap_or(Err(OauthError::Late { after }))
}

/// The credential, and the attributes written behind it.
fn split_attributes(secret: &Secret) -> (&str, &str) {
    secret.expose().split_once('?').unwrap_or((secret.expose(), ""))
}

/// What is asked.
#[derive(Clone, Copy)]
struct ApiQuestion<'a> {
    /// Below the server's URL.
    path: &'a str,
    content_type: &'a str,
    /// The token that allows it.
    bearer: Option<&'a str>,
    body: &'a [u8],
}

/// An answer that has come whole.
struct ApiAnswer {
    /// The HTTP status.
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

/// The API of one server.
struct ApiClient<'a> {
    connector: ApiConnector,
    base: &'a Url,
}

/// What is wanted of the answer to the first question; the rest of it is of no use here.
#[derive(Deserialize)]
struct TokenAnswer<'a> {
    access_token: &'a str,
}

/// The same of the second.
#[derive(Deserialize)]
struct CreatedKey<'a> {
    key: &'a str,
}

/// How the two endpoints say no.
#[derive(Deserialize, Default)]
#[serde(default)]
struct OAuthRefusal {
    message: String,
    error_description: String,
    error: String,
}

/// The body of the second question (client/tailscale/keys.go, `KeyCapabilities`).
#[derive(Serialize)]
struct KeyRequest<'a> {
    capabilities: KeyCapabilities<'a>,
}

#[derive(Serialize)]
struct KeyCapabilities<'a> {
    devices: DeviceCapabilities<'a>,
}

#[derive(Serialize)]
struct DeviceCapabilities<'a> {
    create: DeviceCreation<'a>,
}

#[derive(Serialize)]
struct DeviceCreation<'a> {
    reusable: bool,
    ephemeral: bool,
    preauthorized: bool,
    tags: &'a [String],
}

impl ApiClient<'_> {
    /// A token for the credential (RFC 6749 section 4.4, the credential in the body).
    async fn request_token(&self, credential: &str) -> Result<ApiAnswer, OauthError> {
        // The server ignores the client's id, as the tailscale command notes too.
        const FIXED: &str = "grant_type=client_credentials&client_id=tailrace&client_secret=";
        // No byte of a form needs more than three: the buffer never grows and leaves no copy.
        let mut form = Zeroizing::new(String::with_capacity(FIXED.len() + 3 * credential.len()));
        form.push_str(FIXED);
        form.extend(form_urlencoded::byte_serialize(credential.as_bytes()));
        let question = ApiQuestion {
            path: "/api/v2/oauth/token",
            content_type: "application/x-www-form-urlencoded",
            bearer: None,
            body: form.as_bytes(),
        };
        self.ask_for_success(question, "take the OAuth secret", credential).await
    }

    /// A key for one node with `tags`.
    async fn request_key(
        &self,
        token: &str,
        tags: &[String],
        attributes: &SecretAttributes,
    ) -> Result<Secret, OauthError> {
        let SecretAttributes { ephemeral, preauthorized, .. } = *attributes;
        let create = DeviceCreation { reusable: false, ephemeral, preauthorized, tags };
        let wanted =
            KeyRequest { capabilities: KeyCapabilities { devices: DeviceCapabilities { create } } };
        let body =
            serde_json::to_vec(&wanted).map_err(|_| self.unexpected_answer("no question"))?;
        let question = ApiQuestion {
            path: "/api/v2/tailnet/-/keys",
            content_type: "application/json",
            bearer: Some(token),
            body: &body,
        };
        let answer = self.ask_for_success(question, "make an auth key", token).await?;
        let key: CreatedKey<'_> = serde_json::from_slice(&answer.body)
            .map_err(|_| self.unexpected_answer("its answer has no key"))?;
        Secret::new(key.key).map_err(OauthError::BadKey)
    }

    /// Asks, and takes nothing but a 200. `hidden` never shows in an error.
    async fn ask_for_success(
        &self,
        question: ApiQuestion<'_>,
        asked: &'static str,
        hidden: &str,
    ) -> Result<ApiAnswer, OauthError> {
        let answer = self.post_question(question).await?;
        match answer.status {
            200 => Ok(answer),
            status => Err(OauthError::Refused {
                server: server_label(self.base),
                asked,
                status,
                words: reason_given(&answer.body, hidden),
            }),
        }
    }

    /// One question over a connection of its own.
    async fn post_question(&self, question: ApiQuestion<'_>) -> Result<ApiAnswer, OauthError> {
        let ApiQuestion { path, content_type, bearer, body } = question;
        let stream = self.connector.open().await?;
        let target = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let bearer = bearer.map(|token| Zeroizing::new(["Bearer ", token].concat()));
        let mut fields = vec![
            ("User-Agent", concat!("tailrace/", env!("CARGO_PKG_VERSION"))),
            ("Accept", "application/json"),
            ("Connection", "close"),
            ("Content-Type", content_type),
        ];
        fields.extend(bearer.iter().map(|value| ("Authorization", value.as_str())));
        let host = server_label(self.base);
        let request = HttpRequest {
            method: "POST",
            target: &target,
            host: &host,
            fields: &fields,
            body: Some(body),
        };
        let response = http_client::send(stream, request).await;
        let response = response.map_err(|error| self.of_http_error(error))?;
        let status = response.status();
        // Its size is fixed: a buffer that grows leaves copies where it was.
        let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
        let read = response.read_whole_body(&mut body, MAX_BODY).await;
        read.map_err(|error| self.of_http_error(error))?;
        Ok(ApiAnswer { status, body })
    }

    fn of_http_error(&self, error: HttpClientError) -> OauthError {
        match error {
            HttpClientError::Io(error) => {
                OauthError::Unreachable { server: server_label(self.base), why: error.to_string() }
            }
            error => self.unexpected_answer(error.to_string()),
        }
    }

    fn unexpected_answer(&self, what: impl Into<String>) -> OauthError {
        OauthError::Strange { server: server_label(self.base), what: what.into() }
    }
}

/// The server's reason as one printable line without anything that is a secret.
fn reason_given(body: &[u8], hidden: &str) -> String {
    let refusal: OAuthRefusal = serde_json::from_slice(body).unwrap_or_default();
    let said = [refusal.message, refusal.error_description, refusal.error];
    let said = said.into_iter().find(|words| !words.is_empty()).unwrap_or_default();
    if said.contains(hidden) {
        return "it repeats what it was sent".to_owned();
    }
    let line = |c: char| if c.is_control() { ' ' } else { c };
    let said: String = redacted(&said).chars().map(line).take(MAX_WORDS).collect();
    if said.is_empty() { "no reason given".to_owned() } else { said }
}
