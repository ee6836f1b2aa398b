//! A direction whose first bytes are looked at before any of them goes on.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind::WouldBlock};
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{BUFFER, DirectionIo, DirectionStep, DirectionStop, RelayDirection};
use crate::relay::{InspectionVerdict, StreamInspector};

/// How far the inspection of a client's first bytes has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum InspectionEnd {
    /// It is over, and they may go on: what was held goes first.
    Passed,
    /// They may not; nothing has gone on, and what came is forgotten.
    Refused,
    /// More bytes are needed; there are none for this reason.
    Waiting(DirectionStop),
}

impl RelayDirection {
    /// Reads up to a verdict, or until there is nothing to read. `over`: no more time.
    pub(in crate::relay) fn inspect_first_bytes(
        &mut self,
        cx: &mut Context<'_>,
        io: &DirectionIo<'_>,
        inspector: &mut dyn StreamInspector,
        over: bool,
    ) -> InspectionEnd {
        // Early bytes, or those that were not enough: seen again only when more have come, or none will.
        if over || (!self.held.is_empty() && !self.looked) {
            self.looked = true;
            match inspector.inspect(&self.held, over) {
                InspectionVerdict::More if !over => {}
                verdict => return self.end_inspection(verdict),
            }
        }
        loop {
            let mut guard = match io.from.readiness().poll_read_ready(cx) {
                Poll::Pending => return InspectionEnd::Waiting(DirectionStop::Dry),
                Poll::Ready(Err(_)) => return InspectionEnd::Waiting(DirectionStop::SourceBroken),
                Poll::Ready(Ok(guard)) => guard,
            };
            let read = BUFFER.with_borrow_mut(|buffer| {
                let n = io.from.receive(&mut guard, buffer)?;
                let inspected = self.inspect_bytes(&buffer[..n], io, inspector);
                self.acknowledge_small(io);
                Ok(inspected)
            });
            match read {
                Ok(Some(inspected)) => return inspected,
                Ok(None) => {}
                Err(error) if io::Error::kind(&error) == WouldBlock => {}
                Err(_) => return InspectionEnd::Waiting(DirectionStop::SourceBroken),
            }
        }
    }

    /// Shows the inspector what has come; no byte is the client's FIN, which stays to be read again. `None`:
    /// it wants more.
    fn inspect_bytes(
        &mut self,
        bytes: &[u8],
        io: &DirectionIo<'_>,
        inspector: &mut dyn StreamInspector,
    ) -> Option<InspectionEnd> {
        if bytes.is_empty() {
            let verdict = inspector.inspect(&self.held, true);
            return Some(self.end_inspection(verdict));
        }
        // Mostly the first bytes are enough, and go on from where they were read into.
        let all = match self.held.is_empty() {
            true => None,
            false => Some(Bytes::from([&self.held, bytes].concat())),
        };
        let verdict = inspector.inspect(all.as_deref().unwrap_or(bytes), false);
        match (verdict, all) {
            (InspectionVerdict::Pass, None) => {
                self.took_in(bytes.len());
                return Some(match self.send_now(bytes, io) {
                    DirectionStep::On => InspectionEnd::Passed,
                    DirectionStep::Stop(turn) => InspectionEnd::Waiting(turn),
                });
            }
            (InspectionVerdict::Refuse, None) => return Some(InspectionEnd::Refused),
            (_, None) => self.held = Bytes::copy_from_slice(bytes),
            (_, Some(all)) => self.held = all,
        }
        self.looked = true;
        (verdict != InspectionVerdict::More).then(|| self.end_inspection(verdict))
    }

    fn end_inspection(&mut self, verdict: InspectionVerdict) -> InspectionEnd {
        match verdict {
            InspectionVerdict::Refuse => {
                self.held = Bytes::new();
                InspectionEnd::Refused
            }
            InspectionVerdict::Pass | InspectionVerdict::More => InspectionEnd::Passed,
        }
    }
}
