//! Every fault has words of its own.
#![forbid(unsafe_code)]

use super::*;

fn text() -> String {
    "thing".to_owned()
}

fn every() -> Vec<Fault> {
    let port: SocketAddr = "127.0.0.1:1080".parse().unwrap();
    let target: SocketAddr = "100.64.0.1:5432".parse().unwrap();
    let (path, last) = (PathBuf::from("/thing"), Some(text()));
    let (name, asked, after) = (text(), text(), Duration::from_millis(5020));
    vec![
        Fault::Binary { binary: path.clone(), why: text() },
        Fault::Ended { how: text(), last: last.clone() },
        Fault::CrashLoop { how: text(), last },
        Fault::UnknownFlag { flag: text(), version: text() },
        Fault::LocalApi { socket: path.clone(), why: text() },
        Fault::NotPermitted { socket: path },
        Fault::PortStolen { port, owner: Some(7) },
        Fault::NoPort,
        Fault::NoKey,
        Fault::KeyUnavailable { why: text() },
        Fault::KeyRefused { refusal: Refusal::Expired, said: text() },
        Fault::RateLimited { wait: Some(text()) },
        Fault::NeedsApproval,
        Fault::Control { server: text(), why: text() },
        Fault::NoRelay { why: None },
        Fault::LogsRequired,
        Fault::Preferences { why: text() },
        Fault::NodeExpired,
        Fault::LoggedOut,
        Fault::Stopped,
        Fault::NotYet { phase: Phase::Starting },
        Fault::NoDnsRoute { name: name.clone(), asked: asked.clone() },
        Fault::NoNameserver { name: name.clone(), domain: text(), skipped: text() },
        Fault::NameUnknown { name: name.clone(), asked: asked.clone() },
        Fault::NameserverFailed { name: name.clone(), asked: asked.clone(), why: text() },
        Fault::NameUnknownHere { name: name.clone(), asked: asked.clone() },
        Fault::ResolverSilent { name: name.clone(), asked: asked.clone(), after },
        Fault::NameserverSilent { name, asked, after },
        Fault::NoRoute { address: target.ip() },
        Fault::NoWayOutside { address: target.ip() },
        Fault::PeerOffline { peer: text() },
        Fault::Refused { target },
        Fault::Silent { target, peer: Some(text()), after },
        Fault::Silent { target, peer: None, after },
    ]
}

#[test]
fn every_fault_has_a_symptom_a_cause_and_a_fix_of_its_own() {
    let mut causes = std::collections::BTreeSet::new();
    for fault in every() {
        let Advice { symptom, cause, fix } = fault.advice();
        assert!(!symptom.is_empty() && fix.len() > 5, "{fault:?}");
        // The words of a fault that has none would be its debug form.
        assert!(!cause.contains(" { ") && cause != format!("{fault:?}"), "{cause}");
        assert_eq!(fault.sentence(), format!("{cause}: {fix}"));
        assert!(causes.insert(cause), "{fault:?}");
    }
}

#[test]
fn times_are_spoken_as_people_do() {
    let spoken = |millis| words::spoken(Duration::from_millis(millis));
    assert_eq!([spoken(5000), spoken(5020), spoken(2460)], ["5 s", "5 s", "2.5 s"]);
}

#[test]
fn t10_a_stolen_port_has_a_word_of_its_own() {
    let words: Vec<&str> = every().iter().filter_map(Fault::word).collect();
    assert_eq!(words, ["internal_port_stolen"]);
}
