//! The first request head of a client that says what it wants, and the end of one that says it badly.
#![forbid(unsafe_code)]

use std::time::Duration;

use bytes::BytesMut;

use super::GatewayState;
use crate::inbound::{self, Failed, Read};
use crate::lifecycle::drain::{Guard, Phase};
use crate::outcome::Outcome;
use crate::record::{Connection, Stage};
use crate::sys::Stream;

/// How long a client over the limit may take to say what it wants before it is turned away.
const OVERFLOW_HEAD: Duration = Duration::from_secs(1);

/// Reads the first request head under one deadline; nothing read is ever lost.
pub(super) async fn read_head(
    gateway_state: &GatewayState,
    stream: &Stream,
    full: bool,
    drain: &Guard,
) -> Result<Read, Failed> {
    let late = if full { Outcome::Overloaded } else { Outcome::HeadTimeout };
    let (head_timeout, max_head) = {
        let limits = gateway_state.limits.load();
        (limits.head_timeout, limits.max_head)
    };
    let limit = if full { OVERFLOW_HEAD } else { head_timeout };
    let mut buffer = BytesMut::new();
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    tokio::select! {
        biased;
        _ = stream.readiness().readable() => {}
        () = &mut deadline => return Err(Failed::unread(&buffer, late)),
        // A client that has said nothing yet is in the middle of nothing.
        () = drain.reached(Phase::Draining) => {
            return Err(Failed::unread(&buffer, Outcome::Draining));
        }
    }
    let over = {
        let read = std::pin::pin!(inbound::read(stream, &mut buffer, max_head));
        tokio::select! {
            biased;
            read = read => return read,
            () = &mut deadline => late,
            () = drain.reached(Phase::Forced) => Outcome::Draining,
        }
    };
    Err(Failed::unread(&buffer, over))
}

/// Ends a connection whose head asked for nothing we could carry.
pub(super) async fn turn_away(stream: &Stream, connection: &mut Connection, failed: Failed) {
    connection.set_inbound(failed.kind);
    let mut record = connection.record();
    if let Some(asked) = &failed.asked {
        record.asked(asked);
    }
    let reply = failed.words(record.id());
    record.stage(Stage::Reply);
    // The record ends before the last words: a client that lingers must not hold up its line.
    record.finish(failed.outcome);
    Box::pin(inbound::reply::say_and_close(stream, &reply)).await;
}
