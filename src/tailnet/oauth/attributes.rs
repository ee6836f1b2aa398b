//! What may be written behind an OAuth secret: `?ephemeral=BOOL&preauthorized=BOOL&baseURL=URL`.
#![forbid(unsafe_code)]

use url::Url;

use super::OauthError;
use crate::secret::redacted;

/// Where Tailscale's API is.
const BASE: &str = "https://api.tailscale.com";

/// What the key is to be like, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SecretAttributes {
    /// Its node is removed when it is gone.
    pub(super) ephemeral: bool,
    /// Its node needs no approval.
    pub(super) preauthorized: bool,
    /// The API's server.
    pub(super) base: Url,
}

/// Reads what is written behind the `?`. The first of several counts, an empty one does not, as
/// with the tailscale command.
pub(super) fn parse_attributes(written: &str) -> Result<SecretAttributes, OauthError> {
    let (mut ephemeral, mut preauthorized, mut base) = (None, None, None);
    for (name, value) in form_urlencoded::parse(written.as_bytes()) {
        let slot = match &*name {
            "ephemeral" => &mut ephemeral,
            "preauthorized" => &mut preauthorized,
            "baseURL" => &mut base,
            _ => return Err(OauthError::UnknownAttribute { name: redacted(&name).into_owned() }),
        };
        slot.get_or_insert(value);
    }
    let truth = |name, value: Option<std::borrow::Cow<'_, str>>, default| match value.as_deref() {
        None | Some("") => Ok(default),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(_) => Err(OauthError::NotBool { name }),
    };
    Ok(SecretAttributes {
        ephemeral: truth("ephemeral", ephemeral, true)?,
        preauthorized: truth("preauthorized", preauthorized, false)?,
        base: parse_base(base.as_deref().filter(|base| !base.is_empty()).unwrap_or(BASE))?,
    })
}

fn parse_base(base: &str) -> Result<Url, OauthError> {
    let url = Url::parse(base).map_err(|_| OauthError::BadBase)?;
    let good = ["http", "https"].contains(&url.scheme())
        && url.has_host()
        && (url.username(), url.password()) == ("", None)
        && (url.query(), url.fragment()) == (None, None);
    good.then_some(url).ok_or(OauthError::BadBase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_tailscale_command() {
        let read = |written| parse_attributes(written).unwrap();
        let base = Url::parse(BASE).unwrap();
        let default = SecretAttributes { ephemeral: true, preauthorized: false, base };
        assert_eq!(read(""), default);
        assert_eq!(read("ephemeral&preauthorized=&baseURL="), default);
        let other = read("ephemeral=false&preauthorized=T&baseURL=http%3A%2F%2Flocalhost:8080");
        assert_eq!((other.ephemeral, other.preauthorized), (false, true));
        assert_eq!(other.base.as_str(), "http://localhost:8080/");
        assert!(!read("ephemeral=0&ephemeral=1").ephemeral, "the first counts");
    }

    #[test]
    fn what_means_nothing_is_an_error_without_a_secret_in_it() {
        let error = |written| parse_attributes(written).unwrap_err().to_string();
        assert!(error("reusable=true").contains("\"reusable\""));
        assert!(!error("tskey-auth-CANARY").contains("CANARY"));
        assert!(error("ephemeral=yes").contains("ephemeral"));
        for base in ["ftp://x", "api.tailscale.com", "https://u:p@x", "https://x/?q=1", "https://"]
        {
            assert!(matches!(parse_base(base), Err(OauthError::BadBase)), "{base}");
        }
    }
}
