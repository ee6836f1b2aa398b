//! Answers over a stream in memory, in one piece and byte by byte.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;

const LIMIT: usize = 64;
const REQUEST: HttpRequest<'_> =
    HttpRequest { method: "GET", target: "/", host: "h", fields: &[], body: None };

/// What `answer` comes to when it is written in pieces and the stream ends behind it.
async fn exchange(answer: &[u8], piece: usize) -> Result<(u16, Vec<u8>), HttpClientError> {
    let (near, mut far): (DuplexStream, DuplexStream) = tokio::io::duplex(1024);
    let serve = async move {
        let mut request = [0; 1024];
        let length = far.read(&mut request).await.unwrap();
        assert_eq!(&request[..length], b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        for piece in answer.chunks(piece) {
            if far.write_all(piece).await.is_err() {
                return; // the client has seen enough
            }
            tokio::task::yield_now().await;
        }
    };
    let ask = async {
        let response = send(near, REQUEST).await?;
        let (status, mut body) = (response.status(), Vec::new());
        response.read_whole_body(&mut body, LIMIT).await?;
        Ok((status, body))
    };
    tokio::join!(ask, serve).0
}

#[test]
fn a_request_is_written_whole_and_its_buffer_never_grows() {
    let fields = [("A", "b"), ("Authorization", "Bearer t")];
    let request = HttpRequest {
        method: "POST",
        target: "/x?y=1",
        fields: &fields,
        body: Some(b"{}"),
        ..REQUEST
    };
    let bytes = request.to_bytes();
    let expected = "POST /x?y=1 HTTP/1.1\r\nHost: h\r\nA: b\r\nAuthorization: Bearer t\r\n\
                    Content-Length: 2\r\n\r\n{}";
    assert_eq!(std::str::from_utf8(&bytes).unwrap(), expected);
    assert_eq!(bytes.capacity(), bytes.len(), "it would leave copies where it was");
    let empty = HttpRequest { body: Some(b""), ..request }.to_bytes();
    assert!(empty.ends_with(b"\r\nContent-Length: 0\r\n\r\n"));
}

#[tokio::test]
async fn whole_answers_of_each_framing() {
    let cases: [(&str, u16, &str); 6] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}beyond", 200, "{}"),
        (
            "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n",
            403,
            "{}",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", 200, "to the end"),
        ("HTTP/1.0 502 Bad\r\n\r\n", 502, ""),
        ("HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n", 204, ""),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
            200,
            "1",
        ),
    ];
    for (answer, status, body) in cases {
        for piece in [1, 7, 4_096] {
            let found = exchange(answer.as_bytes(), piece).await.unwrap();
            assert_eq!(found, (status, body.as_bytes().to_vec()), "{answer:?} by {piece}");
        }
    }
}

#[tokio::test]
async fn u8_garbage_is_told_and_what_is_cut_short_is_no_answer() {
    let chunked =
        |rest: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
    for bad in ["xyz\r\n", "1\r\nabc", "ffffffffffffffffff\r\n", &"1;".repeat(MAX_HEAD)] {
        for piece in [1, 4_096] {
            let error = exchange(chunked(bad).as_bytes(), piece).await.unwrap_err();
            assert!(
                matches!(error, HttpClientError::Body(BodyFramingError::BadChunk)),
                "{bad}: {error}"
            );
        }
    }
    let short = [
        String::new(),
        "HTTP/1.1 20".to_owned(),
        chunked("1\r\n{\r\n"),
        chunked("5\r\nab"),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab".to_owned(),
    ];
    for short in short {
        let error = exchange(short.as_bytes(), 4_096).await.unwrap_err();
        assert!(matches!(error, HttpClientError::CutShort), "{short}: {error}");
    }
    let error = exchange(b"SSH-2.0-x\r\n", 4_096).await.unwrap_err();
    assert!(matches!(error, HttpClientError::Head(ResponseHeadError::NotHttp)), "{error}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_taken() {
    let long = "x".repeat(LIMIT + 1);
    for head in [format!("Content-Length: {}\r\n", long.len()), String::new()] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n{long}");
        for piece in [1, 7, 4_096] {
            let error = exchange(answer.as_bytes(), piece).await.unwrap_err();
            assert!(
                matches!(error, HttpClientError::Body(BodyFramingError::TooLarge { .. })),
                "by {piece}: {error}"
            );
        }
    }
    let most = "x".repeat(LIMIT);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LIMIT}\r\n\r\n{most}");
    assert_eq!(exchange(answer.as_bytes(), 4_096).await.unwrap().1, most.as_bytes());
}

proptest! {
    #[test]
    fn a_chunked_body_is_the_same_in_every_split(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..6),
        piece in 1_usize..40,
    ) {
        let mut framed = Vec::new();
        for chunk in &chunks {
            framed.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            framed.extend([&chunk[..], b"\r\n"].concat());
        }
        framed.extend(b"0\r\n\r\n");
        let mut decoder = BodyDecoder::new(response_head::BodyFraming::Chunked);
        let (mut pending, mut body) = (Vec::new(), Vec::new());
        for piece in framed.chunks(piece) {
            pending.extend_from_slice(piece);
            let used = decoder.decode(&pending, &mut body, usize::MAX).unwrap();
            pending.drain(..used);
        }
        prop_assert!(decoder.is_complete());
        prop_assert_eq!(body, chunks.concat());
    }

    #[test]
    fn any_bytes_are_no_more_than_came(
        framing in prop_oneof![
            Just(response_head::BodyFraming::Chunked),
            Just(response_head::BodyFraming::UntilClose),
            (0_u64..100).prop_map(response_head::BodyFraming::Length),
        ],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut body = Vec::new();
        if let Ok(used) = BodyDecoder::new(framing).decode(&bytes, &mut body, 150) {
            prop_assert!(used <= bytes.len() && body.len() <= used && body.len() <= 150);
            if let response_head::BodyFraming::Length(length) = framing {
                prop_assert!(body.len() as u64 <= length);
            }
        }
    }
}
