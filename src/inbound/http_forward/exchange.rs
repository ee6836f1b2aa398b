//! One request and its response, both ways at once: a response may come before the body is sent.
#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;

use super::super::chunked::ChunkOutput;
use super::super::framing::{self, MessageFraming};
use super::super::head::{self, MessageHead, MessageKind};
use super::super::parse::ParseError;
use super::ForwardSession;
use super::body_pump::{BodyError, BodyPump, ByteCounter};
use super::rewrite::{self, ForwardRequest, ResponseKind};
use crate::outcome::Outcome;
use crate::sys::{Exiting, Stream};

/// What an exchange leaves behind.
#[derive(Debug)]
pub struct ForwardExchange {
    /// How the request ended.
    pub outcome: Outcome,
    /// What to tell the client, when nothing was told yet.
    pub message: Option<String>,
    /// The client may ask again.
    pub client_reusable: bool,
    /// The upstream may take another request.
    pub upstream_reusable: bool,
    /// The client and the origin speak another protocol now: bytes already read, up and down.
    pub upgraded: Option<(Bytes, Bytes)>,
    /// The upstream had closed before this request: nothing was answered, nothing is lost.
    pub stale: bool,
}

impl ForwardExchange {
    /// An end after which neither connection is of use.
    pub fn closing(outcome: Outcome) -> Self {
        Self {
            outcome,
            message: None,
            client_reusable: false,
            upstream_reusable: false,
            upgraded: None,
            stale: false,
        }
    }

    fn closing_with_message(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::closing(outcome) }
    }
}

/// The two sockets of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeSockets<'a> {
    /// The client.
    pub client: &'a Stream,
    /// The upstream.
    pub upstream: &'a Stream,
    /// Longest silence.
    pub idle: Duration,
    /// Most bytes of an answer's head.
    pub max_head: usize,
    /// The process behind the upstream, where it is ours.
    pub upstream_process: Option<&'a Exiting>,
}

impl ExchangeSockets<'_> {
    /// Whether the upstream's process is being killed: a FIN then ends no answer.
    fn upstream_is_killed(self) -> bool {
        self.upstream_process.is_some_and(Exiting::exiting)
    }
}

/// Interim answers to one request; more is a fault of the origin.
const MAX_INTERIM: usize = 32;
/// Silence is watched in this many ticks.
const TICKS: u32 = 4;

/// How the answer went.
enum AnswerDelivery {
    Whole {
        /// The upstream keeps its connection open.
        persists: bool,
        /// The client was told that its connection ends.
        close: bool,
    },
    Upgraded,
}

/// What both directions see of each other.
#[derive(Default)]
struct ExchangeProgress {
    moved: AtomicU64,
    uploaded: AtomicBool,
    /// A byte of the upstream's answer has come.
    heard: AtomicBool,
    /// The client was told to go on with its body.
    continued: AtomicBool,
    /// A byte of the final answer has been said to the client.
    said: AtomicBool,
    /// The upload was told that the upstream broke: who reads next is told of an end (tcp(7), `SO_ERROR`).
    broke: AtomicBool,
}

impl ExchangeProgress {
    /// Notes why the upstream took no more. It may have ended its answer before that: then `EPIPE` is said,
    /// as by a Unix socket always; anything else came without a FIN (kernel, `tcp_reset`).
    fn upload_refused(&self, error: &io::Error) {
        self.broke.store(error.kind() != io::ErrorKind::BrokenPipe, Ordering::Relaxed);
    }
}

impl ForwardSession {
    /// Carries one request and its response. `early` are upstream bytes read before.
    pub async fn carry_exchange(
        &mut self,
        way: ExchangeSockets<'_>,
        early: Bytes,
        request: &ForwardRequest,
        counts: &(impl ByteCounter + Sync),
    ) -> ForwardExchange {
        let progress = ExchangeProgress::default();
        let mut answered = BytesMut::from(&early[..]);
        let up = BodyPump {
            side: MessageKind::Request,
            source: way.client,
            buffer: &mut self.buffer,
            sink: way.upstream,
            count: |n| counts.count_up(n),
            moved: &progress.moved,
        };
        let down = BodyPump {
            side: MessageKind::Response,
            source: way.upstream,
            buffer: &mut answered,
            sink: way.client,
            count: |n| counts.count_down(n),
            moved: &progress.moved,
        };
        let ended = both_ways(
            way,
            send_request(up, request, &progress),
            relay_answer(way, down, request, &progress),
            &progress,
        )
        .await;
        let uploaded = progress.uploaded.load(Ordering::Relaxed);
        match ended {
            ExchangeEnd::Answer(Ok(AnswerDelivery::Upgraded)) => ForwardExchange {
                upgraded: Some((
                    into_early_bytes(std::mem::take(&mut self.buffer)),
                    into_early_bytes(answered),
                )),
                ..ForwardExchange::closing(Outcome::FinFin)
            },
            ExchangeEnd::Answer(Ok(AnswerDelivery::Whole { persists, close })) => ForwardExchange {
                client_reusable: uploaded && !close,
                upstream_reusable: uploaded && persists && answered.is_empty(),
                ..ForwardExchange::closing(Outcome::Ok)
            },
            ExchangeEnd::Answer(Err(broken)) => answer_broke(way, broken, request, &progress),
            ExchangeEnd::Upload(broken) => upload_broke(way, broken, &progress),
            ExchangeEnd::ClientGone => {
                way.upstream.reset_on_close();
                ForwardExchange::closing(Outcome::ClientRst)
            }
            ExchangeEnd::Idle => ForwardExchange::closing(Outcome::Idle),
        }
    }
}

/// What was read too early. Nothing of it keeps no memory for as long as the tunnel lives.
fn into_early_bytes(buffer: BytesMut) -> Bytes {
    if buffer.is_empty() { Bytes::new() } else { buffer.freeze() }
}

enum ExchangeEnd {
    Answer(Result<AnswerDelivery, BodyError>),
    Upload(BodyError),
    ClientGone,
    Idle,
}

async fn both_ways(
    way: ExchangeSockets<'_>,
    upload: impl Future<Output = Result<(), BodyError>>,
    download: impl Future<Output = Result<AnswerDelivery, BodyError>>,
    progress: &ExchangeProgress,
) -> ExchangeEnd {
    tokio::pin!(upload, download);
    let (mut uploading, mut early) = (true, None);
    let gone = async {
        if way.client.readiness().ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let silence = wait_for_silence(progress, way.idle);
    tokio::pin!(gone, silence);
    loop {
        tokio::select! {
            biased;
            sent = &mut upload, if uploading => {
                uploading = false;
                match (sent, early.take()) {
                    (_, Some(answer)) => return ExchangeEnd::Answer(Ok(answer)),
                    (Ok(()), None) => {}
                    // An origin may answer and close without reading all: its answer counts.
                    (Err(BodyError::Sink(error)), None) => progress.upload_refused(&error),
                    (Err(broken), None) => return ExchangeEnd::Upload(broken),
                }
            }
            answer = &mut download, if early.is_none() => match answer {
                // The origin still takes the rest of the request: let it come.
                Ok(whole @ AnswerDelivery::Whole { persists: true, close: false }) if uploading => {
                    early = Some(whole);
                }
                answer => return ExchangeEnd::Answer(answer),
            },
            () = &mut gone => return ExchangeEnd::ClientGone,
            () = &mut silence => return ExchangeEnd::Idle,
        }
    }
}

/// Ends when nothing has moved for `idle`, a tick more at most.
async fn wait_for_silence(progress: &ExchangeProgress, idle: Duration) {
    let (mut before, mut still) = (u64::MAX, 0);
    loop {
        let now = progress.moved.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        if still == TICKS {
            return;
        }
        before = now;
        tokio::time::sleep(idle / TICKS).await;
    }
}

async fn send_request<C: Fn(u64)>(
    mut pump: BodyPump<'_, C>,
    request: &ForwardRequest,
    progress: &ExchangeProgress,
) -> Result<(), BodyError> {
    pump.write_all(&request.head).await?;
    pump.pass_body(request.body, ChunkOutput::Chunks).await?;
    progress.uploaded.store(true, Ordering::Relaxed);
    Ok(())
}

async fn relay_answer<C: Fn(u64)>(
    way: ExchangeSockets<'_>,
    mut pump: BodyPump<'_, C>,
    request: &ForwardRequest,
    progress: &ExchangeProgress,
) -> Result<AnswerDelivery, BodyError> {
    for _ in 0..MAX_INTERIM {
        let head: MessageHead = pump
            .read_until_parsed(|bytes| {
                progress.heard.fetch_or(!bytes.is_empty(), Ordering::Relaxed);
                head::parse_head(bytes, MessageKind::Response, way.max_head)
            })
            .await?;
        let status = parse_status(&head)?;
        match status {
            101 => {
                let switched = request.upgrade.confirmed_by(&head)?;
                let said =
                    rewrite::rewrite_response(&head, status, ResponseKind::Upgraded(switched))?;
                progress.said.store(true, Ordering::Relaxed);
                pump.write_all(&said).await?;
                return Ok(AnswerDelivery::Upgraded);
            }
            100..=199 => {
                progress.continued.store(true, Ordering::Relaxed);
                // HTTP/1.0 knows no interim answers.
                if !request.http10 {
                    pump.write_all(&rewrite::rewrite_response(
                        &head,
                        status,
                        ResponseKind::Interim,
                    )?)
                    .await?;
                }
            }
            _ => return relay_final_answer(way, pump, &head, status, request, progress).await,
        }
    }
    Err(ParseError::bad_request("the origin sends one interim answer after another").into())
}

/// Passes the final answer on.
async fn relay_final_answer<C: Fn(u64)>(
    way: ExchangeSockets<'_>,
    mut pump: BodyPump<'_, C>,
    head: &MessageHead,
    status: u16,
    request: &ForwardRequest,
    progress: &ExchangeProgress,
) -> Result<AnswerDelivery, BodyError> {
    let version = head::parse_version(head.first())?;
    let body = framing::of_response(head, version, status, request.is_head)?;
    let close = !request.keep_alive
        || body == MessageFraming::UntilClose
        || body_is_unwanted(status, request, progress);
    let plain = request.http10 && body == MessageFraming::Chunked;
    let said = rewrite::rewrite_response(head, status, ResponseKind::Final { close, plain })?;
    progress.said.store(true, Ordering::Relaxed);
    pump.write_all(&said).await?;
    pump.pass_body(body, if plain { ChunkOutput::Data } else { ChunkOutput::Chunks }).await?;
    if body == MessageFraming::UntilClose
        && (way.upstream_is_killed() || progress.broke.load(Ordering::Relaxed))
    {
        return Err(BodyError::Early);
    }
    Ok(AnswerDelivery::Whole {
        persists: rewrite::keeps_connection(head) && body != MessageFraming::UntilClose,
        close,
    })
}

/// The answer refuses a body that is still coming, or the client still waits to be told to send it:
/// what comes next from the client could be either body or request.
fn body_is_unwanted(status: u16, request: &ForwardRequest, progress: &ExchangeProgress) -> bool {
    let waits = request.expects_continue && !progress.continued.load(Ordering::Relaxed);
    !progress.uploaded.load(Ordering::Relaxed) && (status >= 400 || waits)
}

fn parse_status(head: &MessageHead) -> Result<u16, ParseError> {
    let text = std::str::from_utf8(head.second()).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| ParseError::bad_request("the origin's status is not a number"))
}

/// The upstream's side broke: what the client is told depends on what it was told before.
fn answer_broke(
    way: ExchangeSockets<'_>,
    broken: BodyError,
    request: &ForwardRequest,
    progress: &ExchangeProgress,
) -> ForwardExchange {
    way.upstream.reset_on_close();
    if matches!(broken, BodyError::Sink(_)) {
        return ForwardExchange::closing(Outcome::ClientRst);
    }
    let said = progress.said.load(Ordering::Relaxed);
    let heard = progress.heard.load(Ordering::Relaxed);
    match broken {
        _ if said => {
            // Half an answer must not look whole.
            way.client.reset_on_close();
            ForwardExchange::closing(match broken {
                BodyError::Bad(_) => Outcome::UpstreamProtocol,
                _ => Outcome::UpstreamRst,
            })
        }
        BodyError::Bad(bad) => {
            let message = format!("the origin's answer is not valid HTTP: {bad}");
            ForwardExchange::closing_with_message(Outcome::UpstreamProtocol, message)
        }
        _ => ForwardExchange {
            stale: !heard && request.body == MessageFraming::None,
            ..ForwardExchange::closing_with_message(
                Outcome::UpstreamFailed,
                "the origin closed the connection without an answer: try again",
            )
        },
    }
}

/// The client's side broke while it was sending.
fn upload_broke(
    way: ExchangeSockets<'_>,
    broken: BodyError,
    progress: &ExchangeProgress,
) -> ForwardExchange {
    way.upstream.reset_on_close();
    match broken {
        BodyError::Bad(bad) if !progress.said.load(Ordering::Relaxed) => {
            ForwardExchange::closing_with_message(bad.outcome, bad.message)
        }
        BodyError::Bad(bad) => ForwardExchange::closing(bad.outcome),
        _ => ForwardExchange::closing(Outcome::ClientGone),
    }
}
