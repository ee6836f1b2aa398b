//! From sockets to the processes that hold them: those who called lately first, then new processes,
//! then all others.
#![forbid(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::process::{self, Process};
use crate::sys::{self, Descriptors, Program, SocketOwner, SocketOwners};

/// Processes that called lately, remembered to be looked at first.
const MOST_RECENT: usize = 8;
/// Descriptors of each at which its sockets were.
const MOST_HINTS: usize = 64;
/// How many of them, and of those descriptors, are looked at in passing.
const GLANCE: (usize, u32) = (2, 8);
/// Descriptors looked at in one search, about 20 ms of them.
const MOST_LOOKS: u32 = 20_000;
/// How far up a socket is followed that a process has from its parent.
const MOST_GENERATIONS: usize = 8;
/// How long the processes that held nothing for us are left alone, from the first time on.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A client's socket whose holder is wanted.
#[derive(Debug)]
pub(super) struct WantedSocket {
    /// The socket's own address, and the one it is connected to as it sees it.
    pub(super) pair: (SocketAddr, SocketAddr),
    pub(super) owner: SocketOwner,
    pub(super) found: SearchResult,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// Nobody we see holds it.
    Nobody,
    /// Not everybody was looked at.
    Unfinished,
    /// `tailrace` itself holds it and nobody else yet: perhaps `run` on its way to its program.
    Intermediary(Arc<Process>),
    /// It is held by this process.
    Holder(Arc<Process>),
}

#[derive(Debug)]
struct RecentCaller {
    process: Arc<Process>,
    hints: Vec<u32>,
}

/// Remembers who called, and who was there.
#[derive(Debug)]
pub(super) struct ProcessSearch {
    recent: Vec<RecentCaller>,
    /// Who was looked at and is still there.
    seen: HashSet<u32>,
    /// Descriptors one search may look at.
    most_looks: u32,
    patience: Duration,
    rest_from: Instant,
    boot: Timestamp,
    own: Option<Vec<u8>>,
    user: u32,
    sees_others: bool,
}

/// A descriptor at which a wanted socket was, and the place of that in `wanted`.
type DescriptorHit = (u32, usize);

/// The sockets nobody was found for yet.
struct UnresolvedSockets<'a> {
    wanted: &'a mut [WantedSocket],
    by_inode: HashMap<u32, usize>,
    looks: u32,
}

impl ProcessSearch {
    pub(super) fn new(now: Instant) -> Self {
        let own = Program::open(std::process::id()).ok().and_then(|own| own.executable());
        Self {
            recent: Vec::new(),
            seen: HashSet::new(),
            most_looks: MOST_LOOKS,
            patience: Duration::ZERO,
            rest_from: now,
            boot: process::boot_time(),
            own,
            user: rustix::process::geteuid().as_raw(),
            sees_others: sys::sees_other_users(),
        }
    }

    /// Finds who holds each of `wanted`.
    pub(super) fn find_holders(
        &mut self,
        wanted: &mut [WantedSocket],
        owners: &mut SocketOwners,
        now: Instant,
    ) {
        let ours = |owner: SocketOwner| self.sees_others || owner.uid == self.user;
        let by_inode = (0..).zip(&*wanted).filter(|(_, wanted)| ours(wanted.owner));
        let by_inode = by_inode.map(|(at, wanted)| (wanted.owner.inode, at)).collect();
        let mut open = UnresolvedSockets { wanted, by_inode, looks: self.most_looks };
        self.where_they_were(&mut open, MOST_RECENT);
        open.forget_closed(owners);
        for pid in self.recent.iter().map(|recent| recent.process.pid).collect::<Vec<_>>() {
            self.search_process(pid, &mut open);
        }
        if !open.is_done() {
            self.search_all(&mut open, owners, now);
        }
    }

    /// Looks for one where the latest callers were, and nowhere else.
    pub(super) fn look_at_recent(&mut self, wanted: &mut WantedSocket) {
        let by_inode = HashMap::from([(wanted.owner.inode, 0)]);
        let mut open =
            UnresolvedSockets { wanted: std::slice::from_mut(wanted), by_inode, looks: GLANCE.1 };
        self.where_they_were(&mut open, GLANCE.0);
    }

    /// Those who called lately, `most` of them, use the same descriptors again.
    fn where_they_were(&mut self, open: &mut UnresolvedSockets<'_>, most: usize) {
        let recent: Vec<(u32, Vec<u32>)> =
            self.recent.iter().take(most).map(|r| (r.process.pid, r.hints.clone())).collect();
        for (pid, hints) in recent {
            if open.is_done() {
                return;
            }
            match Program::open(pid) {
                Ok(program) => {
                    let Ok(descriptors) = program.descriptors() else { continue };
                    let hits = open.look_at_descriptors(&descriptors, hints.into_iter());
                    self.credit_hits(&program, &hits, open);
                }
                Err(_gone) => self.recent.retain(|recent| recent.process.pid != pid),
            }
        }
    }

    fn search_all(
        &mut self,
        open: &mut UnresolvedSockets<'_>,
        owners: &mut SocketOwners,
        now: Instant,
    ) {
        let mut all = sys::programs();
        // The youngest first: a client has mostly been started for its connection.
        all.sort_unstable_by(|a, b| b.cmp(a));
        let (old, new): (Vec<u32>, Vec<u32>) = all.iter().partition(|pid| self.seen.contains(pid));
        self.seen = old.iter().copied().collect();
        for pid in new {
            if open.is_done() {
                return open.leave_off();
            }
            self.search_process(pid, open);
            self.seen.insert(pid);
        }
        open.forget_closed(owners);
        if open.is_done() || now < self.rest_from {
            return open.leave_off();
        }
        let before = open.by_inode.len();
        for pid in old {
            if open.looks == 0 {
                // Whoever was not reached is the first next time.
                self.seen.remove(&pid);
            }
            self.search_process(pid, open);
        }
        if open.by_inode.len() == before {
            self.patience = (self.patience * 2).clamp(PATIENCE.0, PATIENCE.1);
            self.rest_from = now + self.patience;
        } else {
            self.patience = Duration::ZERO;
        }
        if open.looks == 0 {
            open.leave_off();
        }
    }

    /// Looks at every descriptor of a process.
    fn search_process(&mut self, pid: u32, open: &mut UnresolvedSockets<'_>) {
        if open.is_done() {
            return;
        }
        let Some((program, descriptors)) = self.search_descriptors(pid) else { return };
        let hits = open.look_at_descriptors(&descriptors, descriptors.numbers().into_iter());
        if hits.is_empty() {
            return;
        }
        let mut holders = vec![(program, hits)];
        while holders.len() < MOST_GENERATIONS
            && let Some(parent) = holders.last().and_then(|child| self.follow_parent(child, open))
        {
            holders.push(parent);
        }
        for (program, hits) in holders.iter().rev() {
            self.credit_hits(program, hits, open);
        }
    }

    /// The parent, where it holds the same at the same descriptors: a process just forked has its parent's
    /// sockets until it runs its own program, and the parent is the one that calls.
    fn follow_parent(
        &self,
        (child, hits): &(Program, Vec<DescriptorHit>),
        open: &mut UnresolvedSockets<'_>,
    ) -> Option<(Program, Vec<DescriptorHit>)> {
        let (parent, descriptors) = self.search_descriptors(child.parent()?)?;
        let hits = open.look_at_descriptors(&descriptors, hits.iter().map(|(number, _)| *number));
        (!hits.is_empty()).then_some((parent, hits))
    }

    /// A process that may be looked into.
    fn search_descriptors(&self, pid: u32) -> Option<(Program, Descriptors)> {
        let program = Program::open(pid).ok()?;
        if !self.sees_others && program.uid() != Ok(self.user) {
            return None;
        }
        let descriptors = program.descriptors().ok()?;
        Some((program, descriptors))
    }

    /// The process holds what was found at `hits`.
    fn credit_hits(
        &mut self,
        program: &Program,
        hits: &[DescriptorHit],
        open: &mut UnresolvedSockets<'_>,
    ) {
        let hits: Vec<DescriptorHit> =
            hits.iter().copied().filter(|(_, at)| open.is_sought(*at)).collect();
        if hits.is_empty() {
            return;
        }
        let Some(executable) = program.executable() else { return };
        let Some(process) = Process::of(program, &executable, self.boot) else { return };
        let process = self.is_shared(process);
        let between = self.own.as_ref() == Some(&executable) && process.pid != std::process::id();
        for (_, at) in &hits {
            open.note_holder(*at, &process, between);
        }
        if !between {
            self.remember_caller(process, &hits);
        }
    }

    /// The same value again for the same process, so that a thousand connections hold one.
    fn is_shared(&self, process: Process) -> Arc<Process> {
        let known = self.recent.iter().find(|recent| *recent.process == process);
        known.map_or_else(|| Arc::new(process), |recent| Arc::clone(&recent.process))
    }

    fn remember_caller(&mut self, process: Arc<Process>, hits: &[DescriptorHit]) {
        let old = self.recent.iter().position(|recent| recent.process.pid == process.pid);
        let old = old.map(|at| self.recent.remove(at).hints).unwrap_or_default();
        let mut hints: Vec<u32> = hits.iter().map(|(number, _)| *number).collect();
        hints.extend(old.into_iter().filter(|number| !hits.iter().any(|(new, _)| new == number)));
        hints.truncate(MOST_HINTS);
        self.recent.insert(0, RecentCaller { process, hints });
        self.recent.truncate(MOST_RECENT);
    }
}

impl UnresolvedSockets<'_> {
    fn is_done(&self) -> bool {
        self.by_inode.is_empty() || self.looks == 0
    }

    fn is_sought(&self, at: usize) -> bool {
        self.by_inode.contains_key(&self.wanted[at].owner.inode)
    }

    fn look_at_descriptors(
        &mut self,
        descriptors: &Descriptors,
        numbers: impl Iterator<Item = u32>,
    ) -> Vec<DescriptorHit> {
        let mut hits = Vec::new();
        for number in numbers {
            if hits.len() == self.by_inode.len() || self.looks == 0 {
                break;
            }
            self.looks -= 1;
            let place = descriptors.socket(number).and_then(|inode| self.by_inode.get(&inode));
            hits.extend(place.map(|at| (number, *at)));
        }
        hits
    }

    /// A process between client and program is only the answer where nobody else is.
    fn note_holder(&mut self, at: usize, process: &Arc<Process>, between: bool) {
        let wanted = &mut self.wanted[at];
        if between {
            wanted.found = SearchResult::Intermediary(Arc::clone(process));
        } else {
            wanted.found = SearchResult::Holder(Arc::clone(process));
            self.by_inode.remove(&wanted.owner.inode);
        }
    }

    /// Nobody is looked for any longer whose socket was closed meanwhile.
    fn forget_closed(&mut self, owners: &mut SocketOwners) {
        let open: Vec<usize> = self.by_inode.values().copied().collect();
        let pairs: Vec<_> = open.iter().map(|at| self.wanted[*at].pair).collect();
        for (at, owner) in open.into_iter().zip(owners.ask_owners(&pairs)) {
            if owner != Some(self.wanted[at].owner) {
                self.by_inode.remove(&self.wanted[at].owner.inode);
            }
        }
    }

    /// The search ends here, for now.
    fn leave_off(&mut self) {
        for at in self.by_inode.values() {
            let found = &mut self.wanted[*at].found;
            if *found == SearchResult::Nobody {
                *found = SearchResult::Unfinished;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn wanted(owners: &mut SocketOwners, clients: &[TcpStream]) -> Vec<WantedSocket> {
        let pair = |c: &TcpStream| (c.local_addr().unwrap(), c.peer_addr().unwrap());
        let pairs: Vec<_> = clients.iter().map(pair).collect();
        let owners = owners.ask_owners(&pairs);
        let wanted = |(pair, owner): (_, Option<SocketOwner>)| {
            let owner = owner.unwrap_or(SocketOwner { uid: 0, inode: 1 });
            WantedSocket { pair, owner, found: SearchResult::Nobody }
        };
        pairs.into_iter().zip(owners).map(wanted).collect()
    }

    #[test]
    fn who_called_once_is_found_at_once_and_a_thousand_sockets_leave_a_bounded_memory() {
        let mut owners = SocketOwners::open().unwrap();
        let mut search = ProcessSearch::new(Instant::now());
        for _ in 0..10 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = listener.local_addr().unwrap();
            let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(server).unwrap()).collect();
            let mut wanted = wanted(&mut owners, &clients);
            search.find_holders(&mut wanted, &mut owners, Instant::now());
            for one in &wanted {
                let SearchResult::Holder(process) = &one.found else { panic!("{one:?}") };
                assert_eq!(process.pid, std::process::id());
                assert!(Arc::ptr_eq(process, &search.recent[0].process));
            }
        }
        assert_eq!(search.recent.len(), 1);
        assert!(search.recent[0].hints.len() <= MOST_HINTS);
    }

    #[test]
    fn of_a_parent_and_its_child_with_one_socket_the_parent_calls() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = SocketOwners::open().unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        rustix::io::fcntl_setfd(&client, rustix::io::FdFlags::empty()).unwrap();
        let mut cat = Command::new("cat");
        let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut wanted = wanted(&mut owners, std::slice::from_ref(&client));
        let inode = wanted[0].owner.inode;
        let number = u32::try_from(client.as_raw_fd()).unwrap();
        let inherited = Program::open(child.id()).unwrap().descriptors().unwrap();
        assert_eq!(inherited.socket(number), Some(inode), "the child has it too");
        ProcessSearch::new(Instant::now()).find_holders(&mut wanted, &mut owners, Instant::now());
        drop(child.stdin.take());
        child.wait().unwrap();
        let SearchResult::Holder(process) = &wanted[0].found else { panic!("{wanted:?}") };
        assert_eq!(process.pid, std::process::id());
    }

    #[test]
    fn behind_more_descriptors_than_one_search_may_look_at_the_next_one_finds_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = SocketOwners::open().unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let own = Program::open(std::process::id()).unwrap().descriptors().unwrap();
        let own = u32::try_from(own.numbers().len()).unwrap();
        // Younger than we are, and with some hundred descriptors each.
        let script =
            "for n in $(seq 100 500); do eval \"exec $n</dev/null\"; done; echo; read -r end";
        let crowd = || {
            let mut bash = Command::new("bash");
            let pipes = bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = pipes.spawn().unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let children: Vec<_> = (0..4).map(|_| crowd()).collect();
        let mut search = ProcessSearch::new(Instant::now());
        search.most_looks = own + 600;
        let mut founds = Vec::new();
        for _ in 0..10 {
            let mut wanted = wanted(&mut owners, std::slice::from_ref(&client));
            search.find_holders(&mut wanted, &mut owners, Instant::now());
            founds.push(wanted.remove(0).found);
        }
        for mut child in children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_ne!(founds[0], SearchResult::Nobody, "not everybody was looked at");
        let last = founds.last().unwrap();
        assert!(
            matches!(last, SearchResult::Holder(p) if p.pid == std::process::id()),
            "{founds:?}"
        );
    }

    #[test]
    fn a_closed_socket_is_nobody_s_and_costs_no_search() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut owners = SocketOwners::open().unwrap();
        let mut search = ProcessSearch::new(Instant::now());
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut wanted = wanted(&mut owners, std::slice::from_ref(&client));
        drop(client);
        search.find_holders(&mut wanted, &mut owners, Instant::now());
        assert_eq!(wanted[0].found, SearchResult::Nobody);
        assert!(search.seen.is_empty(), "nobody was looked at");
    }
}
