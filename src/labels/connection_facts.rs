//! What is known of one connection, one target or one DNS question.
#![forbid(unsafe_code)]

use super::closed_list;

closed_list! {
    /// The protocol a client speaks to us.
    Inbound {
        /// SOCKS version 4, or its extension 4a for names.
        Socks4 = "socks4",
        /// SOCKS version 5 (RFC 1928).
        Socks5 = "socks5",
        /// An HTTP tunnel (RFC 9110 section 9.3.6).
        Connect = "connect",
        /// HTTP requests in absolute form.
        Http = "http",
        /// Redirected by netfilter: nothing is spoken to us.
        Transparent = "transparent",
        /// A static forward: nothing is spoken to us, and the settings name the target.
        Forward = "forward",
        /// Nothing we know, or nothing yet.
        Unknown = "unknown",
    }
}

closed_list! {
    /// Which way bytes go.
    Direction {
        /// From the client towards the target.
        Up = "up",
        /// From the target towards the client.
        Down = "down",
    }
}

closed_list! {
    /// Who vouches for the name of a target.
    HostFrom {
        /// The client said it in its request.
        Client = "client",
        /// The server name of a ClientHello (RFC 6066 section 3).
        Sni = "sni",
        /// The `Host` field of a redirected HTTP request.
        HttpHost = "http_host",
        /// Our own DNS answer had the address that was dialled.
        Dns = "dns",
        /// Nothing was asked for yet, or the target is the bare address of a redirected connection.
        None = "none",
    }
}

closed_list! {
    /// Where a dialled address leads.
    Route {
        /// To a peer, or through a subnet route.
        Tailnet = "tailnet",
        /// Neither: tailscaled dials it from this host's own network.
        Outside = "outside",
        /// Dialled from this host, without a tailnet.
        Direct = "direct",
    }
}

closed_list! {
    /// The way out that `upstream.kind` came to.
    UpstreamKind {
        /// Through tailscaled's SOCKS5 port.
        Tailscaled = "tailscaled",
        /// Through tailscaled's LocalAPI, without any port.
        LocalApi = "localapi",
        /// Through some SOCKS5 server.
        Socks5 = "socks5",
        /// Dialled from this host itself.
        Direct = "direct",
    }
}

closed_list! {
    /// What a client's FIN does.
    HalfClose {
        /// Passed on as it comes.
        Propagate = "propagate",
        /// Held back until the upstream ends, or until the client has left for good: an old tailscaled
        /// would cut the answer off.
        Defer = "defer",
    }
}

closed_list! {
    /// What the allow-lists do. `deny_nets` and loops hold in every mode.
    PolicyMode {
        /// They are not asked.
        Off = "off",
        /// Say what enforcement would have done.
        Log = "log",
        /// Refuse what they do not allow.
        Enforce = "enforce",
    }
}

closed_list! {
    /// What policy decided about a target or an address.
    Verdict {
        /// It is carried: a rule allows it, no list restricts it, or the mode is off.
        Allow = "allow",
        /// Carried, but enforcement would refuse it.
        WouldDeny = "would_deny",
        /// It is refused by a rule, or because mode enforce finds none that allows it.
        Deny = "deny",
    }
}

closed_list! {
    /// By which route a name is asked.
    DnsRoute {
        /// The netmap has it, or says that there is none.
        Magicdns = "magicdns",
        /// The nameservers of a split-DNS route.
        Split = "split",
        /// The tailnet's global resolvers.
        Global = "global",
        /// This host's own resolver: getaddrinfo(3), and its nameservers for what that does not ask.
        System = "system",
        /// An answer that still holds.
        Cache = "cache",
    }
}

closed_list! {
    /// What came of a DNS question.
    DnsResult {
        /// There is an answer.
        Ok = "ok",
        /// Everybody who was asked failed.
        Error = "error",
        /// There is no such name, or none with an address.
        Nxdomain = "nxdomain",
        /// Nobody answered in time.
        Timeout = "timeout",
        /// Policy refused it, so nobody was asked.
        Refused = "refused",
    }
}

closed_list! {
    /// A word of the access line that says more than its outcome.
    ErrorDetail {
        /// The request names one host in its target and another in its `Host` field.
        HostMismatch = "host_mismatch",
        /// Another process holds the port that tailscaled's SOCKS5 server was to have.
        InternalPortStolen = "internal_port_stolen",
    }
}

closed_list! {
    /// How far a target has come, or had when it ended.
    Stage {
        /// The client is saying what it wants.
        Head = "head",
        /// Policy decides about what was asked for.
        Policy = "policy",
        /// The name is being resolved.
        Dns = "dns",
        /// The far side is being connected.
        Dial = "dial",
        /// The client is being answered.
        Reply = "reply",
        /// Bytes flow both ways.
        Relay = "relay",
        /// One side is done; the other is given time.
        Linger = "linger",
    }
}
