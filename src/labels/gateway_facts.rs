//! What is known of the gateway itself and of its tailnet.
#![forbid(unsafe_code)]

use super::closed_list;

closed_list! {
    /// What a held upstream connection is good for.
    PoolState {
        /// Greeted, ready to be taken.
        Idle = "idle",
        /// Being dialled or greeted.
        Filling = "filling",
    }
}

closed_list! {
    /// How far this node has come in the tailnet.
    TailnetPhase {
        /// tailscaled starts, or logs in.
        Starting = "starting",
        /// It runs, and is not logged in.
        NeedsLogin = "needs_login",
        /// An admin has to approve the node.
        NeedsApproval = "needs_approval",
        /// The node is in the tailnet: connections are carried.
        Running = "running",
        /// Somebody took the node down (`tailscale down`).
        Stopped = "stopped",
        /// The control server refused the key.
        AuthFailed = "auth_failed",
        /// The control server wants us to wait.
        RateLimited = "rate_limited",
        /// tailscaled ends as soon as it is started.
        CrashLoop = "crash_loop",
        /// tailscaled, or the control server behind it, does not answer.
        Unreachable = "unreachable",
    }
}

closed_list! {
    /// Why a managed tailscaled was started again.
    RestartCause {
        /// It ended by itself.
        Exit = "exit",
        /// A signal ended it.
        Signal = "signal",
        /// It no longer answered.
        Hang = "hang",
        /// The kernel killed it for want of memory.
        Oom = "oom",
    }
}

closed_list! {
    /// Where a managed node's identity is kept (`tailnet.state`).
    NodeIdentity {
        /// Nowhere: each tailscaled is a new node.
        Ephemeral = "ephemeral",
        /// In this gateway's memory.
        Memory = "memory",
        /// In a folder on disk.
        Folder = "folder",
    }
}

closed_list! {
    /// What a connection needs before it would be carried.
    ReadinessPart {
        /// The gateway is not shutting down.
        Drain = "drain",
        /// The node is in its tailnet.
        Tailnet = "tailnet",
        /// The upstream can be reached.
        Upstream = "upstream",
    }
}

closed_list! {
    /// Why a direction that wanted to splice copied.
    SpliceFallback {
        /// No pipe to be had.
        Pipe = "pipe",
        /// An urgent byte lay in the way.
        Urgent = "urgent",
        /// The kernel refused to splice these sockets.
        Error = "error",
        /// The settings forbid it (`relay.splice = false`).
        Off = "off",
    }
}

closed_list! {
    /// The `errno(3)` of a failed accept(2).
    AcceptErrno {
        /// The client left before it was accepted.
        ConnectionAborted = "ECONNABORTED",
        /// This process has no descriptor left.
        ProcessFiles = "EMFILE",
        /// The system has no descriptor left.
        SystemFiles = "ENFILE",
        /// The socket buffers are at their limit, or the kernel is out of memory (accept(2)).
        NoBuffers = "ENOBUFS",
        /// As with ENOBUFS: accept(2) may give either for these shortages.
        NoMemory = "ENOMEM",
        /// A firewall rule forbids it.
        NotPermitted = "EPERM",
        /// Any error that has no label of its own.
        Other = "other",
    }
}

closed_list! {
    /// What came of reading the settings again.
    ReloadResult {
        /// They are in force.
        Ok = "ok",
        /// The old ones stay.
        Error = "error",
    }
}

closed_list! {
    /// Whose log lines were dropped.
    LogStream {
        /// The gateway's own: access lines and what it says of itself.
        Access = "access",
        /// Lines that a managed tailscaled wrote.
        Child = "child",
    }
}

closed_list! {
    /// What one sees of a fault, in the words of the troubleshooting table.
    Symptom {
        /// tailscaled is not there, or ends.
        NotStarted = "tailscaled does not run",
        /// The control server, or an OAuth exchange, refuses it.
        KeyRefused = "the key is refused",
        /// The node has not joined.
        NoNode = "no autoheal-* node appears in the tailnet",
        /// The control server wants us to wait.
        RateLimited = "the control server limits the rate of logins",
        /// The node was in the tailnet.
        LeftTailnet = "the node has left the tailnet",
        /// Nobody has an address for it.
        NameUnresolved = "the internal name does not resolve",
        /// The tailnet is up, the target is not reached.
        HostUnreachable = "joined, but the host is not reachable",
        /// The same where the upstream leads into no tailnet of ours (kinds `direct` and `socks5`): there no
        /// sentence speaks of one.
        HostUnreachableAlone = "the host is not reachable",
        /// The way out itself is down.
        UpstreamUnreachable = "the upstream is not reachable",
        /// A command finds none.
        NoGateway = "no gateway runs",
        /// The lists of `[policy]` refuse the target.
        PolicyRefuses = "the policy refuses the host",
        /// IPv6 is redirected here, IPv4 is not.
        Ipv4Bypass = "IPv4 connections pass the gateway by",
        /// IPv4 is redirected here, IPv6 is not.
        Ipv6Bypass = "IPv6 connections pass the gateway by",
    }
}

closed_list! {
    /// One link of the chain that `doctor` walks.
    ChainLink {
        /// A gateway runs and answers.
        Gateway = "gateway",
        /// The tailscaled binary is there and can be run.
        Binary = "binary",
        /// tailscaled runs and can be asked.
        Process = "process",
        /// The control server answers.
        Login = "login",
        /// The control server takes the key.
        Key = "key",
        /// The node has its netmap.
        Netmap = "netmap",
        /// The way out is up, where no tailnet of ours is.
        Upstream = "upstream",
        /// Both families are redirected, where one is.
        Redirect = "redirect",
        /// The target's name resolves.
        Dns = "dns",
        /// Policy lets the target pass.
        Policy = "policy",
        /// Something leads to the target's address.
        Route = "route",
        /// The tailnet's rules let this node reach the host.
        Acl = "acl",
        /// The port is open.
        Port = "port",
        /// The port speaks TLS.
        Tls = "tls",
    }
}
