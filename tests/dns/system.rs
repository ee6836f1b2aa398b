//! D3, D5, D8 and D11 where this host's resolver is asked.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::lab::{HOST, Lab};
use super::many::{AFTER_ALL, Crowd, impatient};
use super::routes::OUTSIDE;
use tailrace_rig::fake_tailnet::script::Script;
use tailrace_rig::system_nameserver::Record;
use tailrace_rig::wait::{assert_within, eventually};
use tailrace_rig::{HttpOrigin, Inbound, Nameserver, SystemNameserver, netns};

fn record() -> Record {
    Record { alias: None, address: OUTSIDE.parse().unwrap() }
}

fn public(origin: &HttpOrigin) -> impl FnOnce(&mut Script) {
    let address = origin.address();
    move |script| {
        script.places.insert(OUTSIDE.to_owned(), address);
    }
}

fn names(dns: &SystemNameserver) -> Vec<String> {
    let mut names: Vec<String> = dns.questions().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn d8_search_domains_are_never_appended_and_one_trailing_dot_is_stripped() {
    netns::inside(|| {
        let conf = "search corp.example evil.example\nnameserver 127.0.0.1\n\
                    options ndots:5 timeout:1 attempts:1\n";
        let nobody = SystemNameserver::take_over_with(conf, []);
        let server = Nameserver::at(&[HOST]);
        let mut lab = Lab::of("tailscaled", &[&server]);
        lab.refuses(Inbound::Socks5, "nobody.public.example", "dns_error", "system");
        lab.refuses(Inbound::Socks5, "nobody.public.example.", "dns_error", "system");
        assert_eq!(names(&nobody), ["nobody.public.example"]);
        let said = lab.sentence("nobody.public.example", "dns_error");
        let wanted = "no DNS route of the tailnet covers nobody.public.example, and this host's \
                      resolver does not know it: add a split-DNS route for its domain in the admin \
                      console, or check the spelling";
        assert_eq!(said, wanted);
        lab.reaches(Inbound::Socks5, "db.corp.example.", "split", HOST);
        lab.reaches(Inbound::Socks5, "db.corp.example", "cache", HOST);
        lab.gateway.assert_refused(Inbound::Socks5, "db.corp.example..:80", "bad_request");
        assert_eq!(server.questions().len(), 2);
        assert_eq!((lab.count("system", "nxdomain"), lab.counts()), (3, 5));
        lab.gateway.settle_and_check(6);
        let hosts: Vec<_> = lab.gateway.access_lines().iter().map(|l| l["host"].clone()).collect();
        assert_eq!(hosts[..2], ["nobody.public.example"; 2]);
    });
}

#[test]
fn d5_a_truncated_datagram_is_asked_again_over_tcp() {
    netns::inside(|| {
        let datagrams = SystemNameserver::truncating();
        let stream = Nameserver::on((Ipv4Addr::LOCALHOST, 53).into(), |q| q.at(&[OUTSIDE]).into());
        let origin = HttpOrigin::ok("found");
        let mut lab = Lab::with("tailscaled", &[], public(&origin), |_| ());
        lab.reaches(Inbound::Socks5, "www.public.example", "system", OUTSIDE);
        assert!(datagrams.asked("www.public.example") > 0);
        assert!(stream.asked("www.public.example") > 0);
        assert_eq!(lab.count("system", "ok"), 1);
        lab.gateway.settle_and_check(1);
    });
}

#[test]
fn d11_a_replaced_resolv_conf_counts_at_once() {
    netns::inside(|| {
        netns::own_etc();
        let conf = |last: u8| format!("nameserver 127.0.0.{last}\noptions timeout:1 attempts:1\n");
        netns::replace_in_etc("resolv.conf", &conf(2));
        let [old, new] =
            [2, 3].map(|last| SystemNameserver::at(Ipv4Addr::new(127, 0, 0, last), [record()]));
        let origin = HttpOrigin::ok("found");
        let mut lab = Lab::with("tailscaled", &[], public(&origin), |_| ());
        lab.reaches(Inbound::Socks5, "one.public.example", "system", OUTSIDE);
        assert_eq!((names(&old), names(&new)), (vec!["one.public.example".to_owned()], Vec::new()));
        netns::replace_in_etc("resolv.conf", &conf(3));
        let (begun, pid) = (Instant::now(), lab.gateway.pid());
        lab.reaches(Inbound::Socks5, "two.public.example", "system", OUTSIDE);
        assert_within("the new file", begun.elapsed(), Duration::from_secs(5));
        assert_eq!(names(&new), ["two.public.example"]);
        assert_eq!(names(&old), ["one.public.example"], "the old one is left alone");
        assert_eq!(lab.gateway.pid(), pid);
        lab.gateway.settle_and_check(2);
    });
}

#[test]
fn d3_a_silent_host_resolver_delays_neither_a_remembered_nor_a_split_name() {
    netns::inside(|| {
        let silent = SystemNameserver::silent();
        let server = Nameserver::at(&[HOST]);
        let mut lab = Lab::with("localapi", &[&server], |_| (), impatient);
        lab.reaches(Inbound::Socks5, "known.corp.example", "split", HOST);
        let crowd = Crowd::asks(&lab.gateway, (0..600).map(|n| format!("n{n}.public.example")));
        eventually("they are asked", Duration::from_secs(2), || names(&silent).len() >= 64);
        for (name, by) in [("known.corp.example", "cache"), ("new.corp.example", "split")] {
            let begun = Instant::now();
            lab.reaches(Inbound::Socks5, name, by, HOST);
            assert_within(name, begun.elapsed(), Duration::from_millis(50));
        }
        let took = crowd.told(4);
        assert!(took < AFTER_ALL, "{took:?}");
        assert!(names(&silent).len() <= 128, "{}", names(&silent).len());
        assert_eq!((lab.count("system", "timeout"), lab.counts()), (600, 603));
        lab.gateway.settle_and_check(603);
    });
}

#[test]
fn d10_a_thousand_look_ups_of_one_public_name_are_one_question() {
    netns::inside(|| {
        let silent = SystemNameserver::silent();
        let lab = Lab::with("tailscaled", &[], |_| (), impatient);
        let crowd = Crowd::asks(&lab.gateway, (0..1000).map(|_| "www.public.example".to_owned()));
        let took = crowd.told(4);
        assert!(took < AFTER_ALL, "{took:?}");
        // glibc asks once a second and type, two times; the crowd counts as one.
        assert!(silent.asked("www.public.example") <= 4, "{:?}", silent.questions());
    });
}
