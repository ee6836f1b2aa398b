//! What stands behind the question mark: known parameters only, once each, decoded strictly.
#![forbid(unsafe_code)]

/// Why a query is refused, in a sentence.
pub(super) type BadQuery = String;

/// The value of `known`, the one parameter a path takes, decoded.
pub(super) fn only(query: Option<&str>, known: &str) -> Result<Option<String>, BadQuery> {
    let mut found = None;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != known {
            return Err(format!("unknown query parameter: there is {known}"));
        }
        if found.replace(decode(value)?).is_some() {
            return Err(format!("{known} stands there twice: give it once"));
        }
    }
    Ok(found)
}

/// Refuses any query, for the paths that know no parameter; an empty one passes.
pub(super) fn none(query: Option<&str>) -> Result<(), BadQuery> {
    match query {
        None | Some("") => Ok(()),
        Some(_) => Err("this path takes no query parameter".to_owned()),
    }
}

/// `true` or `false`; absent is false.
pub(super) fn switch(query: Option<&str>, known: &str) -> Result<bool, BadQuery> {
    match only(query, known)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(format!("{known} is true or false")),
    }
}

/// Percent-decoding (RFC 3986 section 2.1): two hexadecimal digits behind each sign, once, and UTF-8
/// in the end. A plus sign is a plus sign.
fn decode(text: &str) -> Result<String, BadQuery> {
    let bad = || "bad percent-encoding: write %XX, as UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
                (high << 4 | low) as u8
            }
            plain => plain,
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_known_parameter_decoded_once() {
        let target = |query| only(Some(query), "target");
        assert_eq!(target("target=a.example%3A80").unwrap().as_deref(), Some("a.example:80"));
        assert_eq!(target("target=%5b%3A%3A1%5D:1").unwrap().as_deref(), Some("[::1]:1"));
        assert_eq!(target("target=%2561+b").unwrap().as_deref(), Some("%61+b"), "once");
        assert_eq!(target("target").unwrap().as_deref(), Some(""));
        assert_eq!((target("").unwrap(), only(None, "target").unwrap()), (None, None));
        for bad in ["target=%", "target=%4", "target=%zz", "target=%+1", "target=%ff", "x=1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert!(target("target=a&target=a").unwrap_err().contains("twice"));
        assert!(target("target=a&TARGET=a").is_err());
    }

    #[test]
    fn switches_and_paths_that_take_nothing() {
        assert_eq!(switch(Some("peers=true"), "peers"), Ok(true));
        assert_eq!(
            (switch(Some("peers=false"), "peers"), switch(None, "peers")),
            (Ok(false), Ok(false))
        );
        assert!(
            switch(Some("peers=1"), "peers").is_err() && switch(Some("peers"), "peers").is_err()
        );
        assert!(none(None).is_ok() && none(Some("")).is_ok() && none(Some("a")).is_err());
    }
}
