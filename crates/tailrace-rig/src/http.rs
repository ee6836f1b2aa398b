//! HTTP as a client sees it: heads as they are on the wire, bodies unframed.

use std::io::Read as _;

use super::raw_connection::{RawConnection, length_until};

/// A response (or request) head.
#[derive(Clone, Debug)]
pub struct HttpHead {
    /// The first line, without its line end.
    pub start: String,
    /// Field names as written and values without surrounding blanks, in order.
    pub fields: Vec<(String, String)>,
    /// The head's bytes, blank line included.
    pub raw: Vec<u8>,
}

impl HttpHead {
    /// Splits the raw head.
    pub fn parse(raw: Vec<u8>) -> HttpHead {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n").filter(|l| !l.is_empty());
        let start = lines.next().unwrap_or_default().to_owned();
        let field = |l: &str| l.split_once(':').map(|(n, v)| (n.to_owned(), v.trim().to_owned()));
        HttpHead { start, fields: lines.filter_map(field).collect(), raw }
    }

    /// The status of a response; 0 if the first line has none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Every value of that field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Its head.
    pub head: HttpHead,
    /// Its body, unframed.
    pub body: Vec<u8>,
}

impl HttpAnswer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as JSON; panics if it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("body is not JSON ({e}): {}", String::from_utf8_lossy(&self.body))
        })
    }
}

impl RawConnection {
    /// Reads one head, not a byte more.
    #[track_caller]
    pub fn read_head(&mut self) -> HttpHead {
        const END: &[u8] = b"\r\n\r\n";
        let (mut raw, mut chunk) = (Vec::new(), vec![0; 16_384]);
        while !raw.ends_with(END) {
            let peeked = self.tcp().peek(&mut chunk);
            let wanted = peeked.map(|seen| length_until(&raw, &chunk[..seen], END));
            match wanted.and_then(|wanted| self.tcp().read(&mut chunk[..wanted])) {
                Ok(got @ 1..) => raw.extend_from_slice(&chunk[..got]),
                other => {
                    panic!("head ends early ({other:?}) after: {}", super::transcript::escape(&raw))
                }
            }
            assert!(raw.len() < 1 << 20, "an endless head");
        }
        super::transcript::note("head", "<-", &raw);
        HttpHead::parse(raw)
    }

    /// Reads one response: body by length, by chunks (with trailers, dropped), or to the end.
    #[track_caller]
    pub fn read_answer(&mut self) -> HttpAnswer {
        let head = self.read_head();
        let body = match (head.get("content-length"), head.get("transfer-encoding")) {
            _ if matches!(head.status(), 100..=199 | 204 | 304) => Vec::new(),
            (Some(length), None) => self.read_n(length.parse().unwrap()),
            (None, Some("chunked")) => self.read_chunks(),
            _ => self.rest().0,
        };
        HttpAnswer { head, body }
    }

    #[track_caller]
    fn read_chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line();
            let size =
                usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16).unwrap();
            if size == 0 {
                while !self.read_line().is_empty() {}
                return body;
            }
            body.extend(self.read_n(size));
            self.expect("\r\n");
        }
    }

    #[track_caller]
    fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.read_n(1));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }
}
