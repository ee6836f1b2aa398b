//! Any bytes at the DNS server: an answer or none, and what is answered is an answer to them, within bounds.
#![no_main]

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tailrace::dns::serve::{
    AnswerSource, ClientQuestion, DnsReply, ExtendedError, ExtendedErrorCode, MessageTransport,
    QuestionHandler,
};

struct Any;

impl AnswerSource for Any {
    fn answer(
        &self,
        ClientQuestion { name, .. }: ClientQuestion,
    ) -> std::pin::Pin<Box<dyn Future<Output = DnsReply> + Send>> {
        let length = name.as_str().len();
        let reply = match length % 4 {
            0 => DnsReply::NoSuchName,
            1 => DnsReply::Refused(ExtendedError::new(ExtendedErrorCode::Blocked, name.as_str())),
            2 => DnsReply::Failed(None),
            _ => DnsReply::Records {
                whole: Some(name),
                aliases: Vec::new(),
                addresses: (0..length).map(|n| [10, 0, 0, n as u8].into()).collect(),
                data: Vec::new(),
                left: Duration::from_secs(60),
            },
        };
        Box::pin(std::future::ready(reply))
    }
}

static HANDLER: LazyLock<QuestionHandler> = LazyLock::new(|| QuestionHandler::new(Arc::new(Any)));

fuzz_target!(|data: &[u8]| {
    let peer = SocketAddr::from(([127, 0, 0, 1], 5353));
    for over in [MessageTransport::Datagram, MessageTransport::Stream] {
        let answer = pin!(HANDLER.answer_message(data, peer, over));
        let Poll::Ready(answer) = answer.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing here waits");
        };
        let Some(answer) = answer else { continue };
        assert!(answer.len() >= 12 && data.len() >= 12);
        assert_eq!(answer[..2], data[..2], "the id is the question's");
        assert!(answer[2] & 0x80 != 0 && data[2] & 0x80 == 0, "an answer, and never to an answer");
        assert!(answer.len() <= if over == MessageTransport::Datagram { 1232 } else { 65_535 });
    }
});
