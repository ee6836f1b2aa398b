//! The tailnet as a connection meets it: may it go on now, where does an address lead, and why did it
//! not arrive.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::relay::HalfClose;
use crate::sys;
use crate::tailnet::{PeerWarmup, TailnetFault, TailnetState, TailscaledVersion};
use crate::upstream::UpstreamError;

/// tailscaled gives a dial five seconds (net/socks5/socks5.go:209): what it says after less than
/// this was said by the other side.
const SILENCE: Duration = Duration::from_millis(4500);

/// What connections know of the tailnet.
#[derive(Debug)]
pub struct TailnetGate {
    state: watch::Receiver<Arc<TailnetState>>,
    /// How long a connection waits for the first login.
    ready_wait: Duration,
    /// Addresses that nothing in the tailnet covers may be dialled (`upstream.outside_tailnet`).
    may_leave_tailnet: bool,
    /// Of a node that we let into the tailnet ourselves.
    warmup: Option<PeerWarmup>,
}

impl TailnetGate {
    /// `state` changes only after upstream, names and policy know of it.
    pub fn new(
        state: watch::Receiver<Arc<TailnetState>>,
        ready_wait: Duration,
        may_leave_tailnet: bool,
    ) -> Self {
        Self { state, ready_wait, may_leave_tailnet, warmup: None }
    }

    /// The same for a node that joins by our doing: its peers have to hear of it first.
    pub fn with_warmup(self, warmup: PeerWarmup) -> Self {
        Self { warmup: Some(warmup), ..self }
    }

    /// Before a dial: a fresh node makes itself known to the peer that leads to `address`.
    pub(crate) async fn warm_up(&self, address: IpAddr) {
        let Some(warmup) = &self.warmup else { return };
        let state = self.now();
        let peer = state.netmap.covering_route(address).filter(|cover| cover.peer.online);
        if let Some(peer) = peer.and_then(|cover| cover.peer.addresses.first()) {
            warmup.warm_up(*peer, state.since).await;
        }
    }

    /// What is known now.
    pub fn now(&self) -> Arc<TailnetState> {
        Arc::clone(&self.state.borrow())
    }

    /// Whether addresses that nothing in the tailnet covers may be dialled.
    pub fn may_leave_tailnet(&self) -> bool {
        self.may_leave_tailnet
    }

    /// Lets a connection pass while the node is in the tailnet. During the first login it waits, from
    /// when its target was asked for.
    ///
    /// # Errors
    /// Why nothing is carried.
    pub(super) async fn wait_until_running(&self, asked_at: Instant) -> Result<(), TailnetFault> {
        let now = self.now();
        if now.is_running() {
            tracing::debug!("the tailnet is up");
            return Ok(());
        }
        if !now.first_login {
            tracing::debug!(phase = now.phase.label(), "the tailnet is not up");
            return Err(now.fault_now());
        }
        let mut state = self.state.clone();
        tracing::debug!(phase = now.phase.label(), "waits for the first login");
        let decided = state.wait_for(|state| state.is_running() || !state.first_login);
        let now = match timeout_at(asked_at + self.ready_wait, decided).await {
            Ok(Ok(state)) => Arc::clone(&state),
            _ => self.now(),
        };
        if now.is_running() { Ok(()) } else { Err(now.fault_now()) }
    }

    /// The real cause behind an upstream's failure, where the netmap and the time it took tell one.
    /// `asked` is the address it was asked for, `took` how long it was waited for.
    pub(super) fn fault_behind(
        &self,
        error: &UpstreamError,
        asked: Option<SocketAddr>,
        took: Duration,
    ) -> Option<TailnetFault> {
        let state = self.now();
        if !state.is_running() {
            return Some(state.fault_now());
        }
        // Of several addresses the first one stands for all.
        let (address, silent, after) = match error {
            UpstreamError::Failed { address, after, .. } => {
                (asked.or(*address)?, *after >= SILENCE, *after)
            }
            // Silence, however short the patience that was set.
            UpstreamError::Timeout { address, after } => (asked.or(*address)?, true, *after),
            UpstreamError::Expired => (asked?, true, took),
            UpstreamError::Refused => return Some(TailnetFault::Refused { target: asked? }),
            UpstreamError::NoRoute => return Some(self.no_route(&state, asked?.ip())),
            UpstreamError::Outside { address } => {
                return Some(TailnetFault::NoRoute { address: asked.or(*address)?.ip() });
            }
            _ => return None,
        };
        Some(fault_at_address(&state, address, silent, after))
    }

    /// This host's own network was tried only for what is outside, where that is allowed.
    fn no_route(&self, state: &TailnetState, address: IpAddr) -> TailnetFault {
        match self.may_leave_tailnet && state.netmap.covering_route(address).is_none() {
            true => TailnetFault::NoWayOutside { address },
            false => TailnetFault::NoRoute { address },
        }
    }
}

/// What a client's FIN does, by which tailscaled there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClosePolicy {
    /// Always the same, whatever tailscaled there is.
    Always(HalfClose),
    /// Passed on to a tailscaled that keeps half-closed connections, else held back (C6).
    ByVersion,
}

impl HalfClosePolicy {
    /// What becomes of a client's FIN with this tailscaled.
    pub fn half_close_for(self, version: Option<&TailscaledVersion>) -> HalfClose {
        match self {
            Self::Always(rule) => rule,
            Self::ByVersion if version.is_some_and(TailscaledVersion::keeps_half_close) => {
                HalfClose::Propagate
            }
            Self::ByVersion => HalfClose::Defer,
        }
    }
}

/// Silence or an answer, and from whom.
fn fault_at_address(
    state: &TailnetState,
    target: SocketAddr,
    silent: bool,
    after: Duration,
) -> TailnetFault {
    match state.netmap.covering_route(target.ip()) {
        Some(cover) if !cover.peer.online => {
            TailnetFault::PeerOffline { peer: cover.peer.host.clone() }
        }
        Some(cover) if silent => {
            let peer = Some(cover.peer.host.clone());
            TailnetFault::Silent { target, peer, after }
        }
        None if silent => TailnetFault::Silent { target, peer: None, after },
        None if !sys::has_route(target.ip()) => TailnetFault::NoWayOutside { address: target.ip() },
        _ => TailnetFault::Refused { target },
    }
}

#[cfg(test)]
mod tests {
    use crate::outcome::{Outcome, Unreachable};
    use crate::tailnet::{Netmap, TailnetDns, TailnetPeer, TailnetPhase};

    use super::*;

    fn state() -> TailnetState {
        let peer = |host: &str, address: &str, routes: &[&str], online| TailnetPeer {
            name: None,
            host: host.to_owned(),
            addresses: vec![address.parse().unwrap()],
            routes: routes.iter().map(|net| net.parse().unwrap()).collect(),
            online,
        };
        let peers = vec![
            peer("svc", "100.64.0.1", &["10.50.0.0/24"], true),
            peer("old", "100.64.0.2", &[], false),
        ];
        let netmap = Arc::new(Netmap::new(None, true, peers, TailnetDns::default()));
        TailnetState {
            phase: TailnetPhase::Running,
            netmap,
            first_login: false,
            ..TailnetState::starting()
        }
    }

    fn tailnet_gate(
        state: TailnetState,
        outside: bool,
    ) -> (watch::Sender<Arc<TailnetState>>, TailnetGate) {
        let (sender, receiver) = watch::channel(Arc::new(state));
        (sender, TailnetGate::new(receiver, Duration::from_secs(5), outside))
    }

    fn failed(address: &str, after: Duration) -> UpstreamError {
        UpstreamError::Failed { rep: 1, words: None, address: address.parse().ok(), after }
    }

    #[test]
    fn one_reply_code_and_its_causes() {
        let (_sender, tailnet_gate) = tailnet_gate(state(), true);
        let (at_once, late) = (Duration::from_millis(3), Duration::from_secs(5));
        let outcome = |address, after| {
            tailnet_gate.fault_behind(&failed(address, after), None, after).unwrap().outcome()
        };
        assert_eq!(outcome("100.64.0.1:9100", at_once), Outcome::Refused);
        assert_eq!(outcome("10.50.0.7:9999", late), Outcome::ConnectTimeout);
        assert_eq!(outcome("100.64.0.2:1", late), Outcome::Unreachable(Unreachable::Host));
        assert_eq!(outcome("127.0.0.9:1", at_once), Outcome::Refused, "outside, and a route there");
        assert_eq!(
            outcome("255.255.255.255:1", at_once),
            Outcome::Unreachable(Unreachable::NoRoute),
            "outside, and none"
        );
        let no_route = |ip: &str| {
            let address: SocketAddr = format!("{ip}:1").parse().unwrap();
            tailnet_gate.fault_behind(&UpstreamError::NoRoute, Some(address), at_once).unwrap()
        };
        let address = "192.0.2.1".parse().unwrap();
        assert_eq!(no_route("192.0.2.1"), TailnetFault::NoWayOutside { address }, "our own dial");
        let address = "10.50.0.7:9999".parse().ok();
        let short = UpstreamError::Timeout { after: Duration::from_secs(1), address };
        let fault = tailnet_gate.fault_behind(&short, address, Duration::from_secs(1)).unwrap();
        assert_eq!(fault.outcome(), Outcome::ConnectTimeout, "a short patience is no refusal");
        let unknown = UpstreamError::Failed { rep: 1, words: None, address: None, after: late };
        assert_eq!(
            tailnet_gate.fault_behind(&unknown, None, late),
            None,
            "a name that was passed on"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn t7_only_the_first_login_is_waited_for() {
        let (sender, tailnet_gate) = tailnet_gate(TailnetState::starting(), true);
        let waited = Instant::now();
        assert!(tailnet_gate.wait_until_running(waited).await.is_err());
        assert_eq!(waited.elapsed(), Duration::from_secs(5));
        let waited = Instant::now();
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sender.send_replace(Arc::new(state()));
        };
        let (passed, ()) = tokio::join!(tailnet_gate.wait_until_running(waited), later);
        assert_eq!(passed, Ok(()));
        let expired = TailnetState {
            phase: TailnetPhase::NeedsLogin,
            fault: Some(TailnetFault::NodeExpired),
            ..state()
        };
        sender.send_replace(Arc::new(expired));
        let waited = Instant::now();
        assert_eq!(tailnet_gate.wait_until_running(waited).await, Err(TailnetFault::NodeExpired));
        assert_eq!(waited.elapsed(), Duration::ZERO);
    }
}
