//! A tunnel's way from permission to the relay's door, the same for every client that says nothing more to us.
#![forbid(unsafe_code)]

use bytes::Bytes;

use super::open_upstream::{Ask, Permitted, dial};
use super::sni_inspector::{SniInspector, SniVerdict};
use super::{GatewayState, Refusal, refuse};
use crate::inbound::{Kind, Reply};
use crate::lifecycle::drain::Guard;
use crate::outcome::Outcome;
use crate::record::{Record, Stage};
use crate::sys::Stream;
use crate::target::Target;
use crate::upstream::{Connected, UpstreamSlot};

/// A client that wants one tunnel.
pub(super) struct Caller<'a> {
    pub(super) gateway_state: &'a GatewayState,
    pub(super) stream: &'a Stream,
    pub(super) kind: Kind,
    /// How to answer.
    pub(super) reply: Reply,
    /// What it has sent for the far side.
    pub(super) early: Bytes,
    /// It was given its time to say more: `early` is all there is to judge by.
    pub(super) heard: bool,
    /// It is over a limit.
    pub(super) full: bool,
    pub(super) drain: &'a Guard,
}

impl Caller<'_> {
    pub(super) fn ask<'a>(&'a self, target: &'a Target) -> Ask<'a> {
        Ask { target, early: !self.early.is_empty(), full: self.full, drain: self.drain }
    }

    /// Opens what policy has admitted, or says no.
    pub(super) async fn lead(
        self,
        mut record: Record,
        permitted: Result<Permitted, Refusal>,
    ) -> Option<Box<Tunnel>> {
        let opened = match permitted {
            Ok(permitted) => self.look_and_open(&mut record, permitted).await,
            Err(refusal) => Err(refusal),
        };
        self.conclude(record, opened).await
    }

    async fn look_and_open(
        &self,
        record: &mut Record,
        permitted: Permitted,
    ) -> Result<Opened, Refusal> {
        let inspector = self.look(record, permitted.admitted.get())?;
        Ok(Opened { inspector, ..self.open(record, permitted).await? })
    }

    /// The way out, with nobody to look at what the client says next.
    pub(super) async fn open(
        &self,
        record: &mut Record,
        permitted: Permitted,
    ) -> Result<Opened, Refusal> {
        let target = permitted.admitted.get().clone();
        let ask = self.ask(&target);
        let connected =
            Box::pin(dial(self.gateway_state, self.stream, record, permitted, ask)).await?;
        Ok(Opened { connected, inspector: None })
    }

    /// Looks at what has come already: what may not pass is not even dialled for.
    fn look(&self, record: &mut Record, target: &Target) -> Result<Option<SniInspector>, Refusal> {
        let Some(inspector) = SniInspector::for_tunnel(self.gateway_state, self.kind, target)
        else {
            return Ok(None);
        };
        if self.early.is_empty() {
            return Ok(Some(inspector));
        }
        match inspector.judge(self.gateway_state, record, &self.early, self.heard) {
            SniVerdict::More => Ok(Some(inspector)),
            SniVerdict::Clear => Ok(None),
            SniVerdict::Refused(refusal) => Err(refusal),
        }
    }

    /// The client is told; what is left to do is the relay, if it was good news.
    pub(super) async fn conclude(
        self,
        mut record: Record,
        opened: Result<Opened, Refusal>,
    ) -> Option<Box<Tunnel>> {
        let Opened { connected, inspector } = match opened {
            Ok(opened) => opened,
            Err(refusal) => {
                refuse(self.stream, record, self.reply, refusal).await;
                return None;
            }
        };
        record.stage(Stage::Reply);
        let said = self.reply.success(connected.reported);
        if self.stream.write_all(&said).await.is_err() {
            record.finish(Outcome::ClientGone);
            return None;
        }
        Some(Tunnel::new(record, connected, self.early, inspector))
    }
}

/// A way out that is open.
pub(super) struct Opened {
    connected: Connected,
    inspector: Option<SniInspector>,
}

/// A tunnel whose client knows that it is open.
pub(super) struct Tunnel {
    pub(super) record: Record,
    pub(super) upstream: Stream,
    pub(super) slot: UpstreamSlot,
    /// What either side has said already.
    pub(super) early: Early,
    pub(super) inspector: Option<SniInspector>,
}

/// Bytes read before the relay began.
pub(super) struct Early {
    pub(super) up: Bytes,
    pub(super) down: Bytes,
}

impl Tunnel {
    pub(super) fn new(
        record: Record,
        connected: Connected,
        early_up: Bytes,
        inspector: Option<SniInspector>,
    ) -> Box<Self> {
        let Connected { stream: upstream, early: down, slot, .. } = connected;
        Box::new(Self { record, upstream, slot, early: Early { up: early_up, down }, inspector })
    }

    /// Its parts, the box gone: what is moved out of one in place keeps it to the end of the scope.
    #[expect(clippy::boxed_local, reason = "the box ends here, not where its parts live on")]
    pub(super) fn parts(
        self: Box<Self>,
    ) -> (Record, Stream, UpstreamSlot, Early, Option<SniInspector>) {
        let Self { record, upstream, slot, early, inspector } = *self;
        (record, upstream, slot, early, inspector)
    }
}
