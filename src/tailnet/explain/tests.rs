//! Every fault has words of its own.
#![forbid(unsafe_code)]

use super::*;
use crate::labels::ErrorDetail;

fn text() -> String {
    "thing".to_owned()
}

fn every() -> Vec<TailnetFault> {
    let port: SocketAddr = "127.0.0.1:1080".parse().unwrap();
    let target: SocketAddr = "100.64.0.1:5432".parse().unwrap();
    let (path, last) = (PathBuf::from("/thing"), Some(text()));
    let (name, asked, after) = (text(), text(), Duration::from_millis(5020));
    vec![
        TailnetFault::Binary { binary: path.clone(), why: text() },
        TailnetFault::Ended { how: text(), last: last.clone() },
        TailnetFault::CrashLoop { how: text(), last },
        TailnetFault::UnknownFlag { flag: text(), version: text() },
        TailnetFault::LocalApi { socket: path.clone(), why: text() },
        TailnetFault::NotPermitted { socket: path },
        TailnetFault::PortStolen { port, owner: Some(7) },
        TailnetFault::NoPort,
        TailnetFault::NoKey,
        TailnetFault::KeyUnavailable { why: text() },
        TailnetFault::KeyRefused { refusal: KeyRefusal::Expired, said: text() },
        TailnetFault::RateLimited { wait: Some(text()) },
        TailnetFault::NeedsApproval,
        TailnetFault::Control { server: text(), why: text() },
        TailnetFault::NoRelay { why: None },
        TailnetFault::LogsRequired,
        TailnetFault::Preferences { why: text() },
        TailnetFault::NodeExpired,
        TailnetFault::LoggedOut,
        TailnetFault::Stopped,
        TailnetFault::NotYet { phase: TailnetPhase::Starting },
        TailnetFault::NoDnsRoute { name: name.clone(), asked: asked.clone() },
        TailnetFault::NoNameserver { name: name.clone(), domain: text(), skipped: text() },
        TailnetFault::NameUnknown { name: name.clone(), asked: asked.clone() },
        TailnetFault::NameserverFailed { name: name.clone(), asked: asked.clone(), why: text() },
        TailnetFault::NameUnknownHere { name: name.clone(), asked: asked.clone() },
        TailnetFault::ResolverSilent { name: name.clone(), asked: asked.clone(), after },
        TailnetFault::NameserverSilent { name, asked, after },
        TailnetFault::UnassignedSynthetic { address: target.ip() },
        TailnetFault::NoRoute { address: target.ip() },
        TailnetFault::NoWayOutside { address: target.ip() },
        TailnetFault::PeerOffline { peer: text() },
        TailnetFault::Refused { target },
        TailnetFault::Silent { target, peer: Some(text()), after },
        TailnetFault::Silent { target, peer: None, after },
    ]
}

#[test]
fn every_fault_has_a_symptom_a_cause_and_a_fix_of_its_own() {
    let mut causes = std::collections::BTreeSet::new();
    for fault in every() {
        let FaultAnswer { symptom, cause, fix } = fault.advice();
        assert!(!symptom.label().is_empty() && fix.len() > 5, "{fault:?}");
        // The words of a fault that has none would be its debug form.
        assert!(!cause.contains(" { ") && cause != format!("{fault:?}"), "{cause}");
        assert_eq!(fault.sentence(), format!("{cause}: {fix}"));
        assert!(causes.insert(cause), "{fault:?}");
    }
}

#[test]
fn times_are_spoken_as_people_do() {
    let spoken = |millis| words::spoken_duration(Duration::from_millis(millis));
    assert_eq!([spoken(5000), spoken(5020), spoken(2460)], ["5 s", "5 s", "2.5 s"]);
}

#[test]
fn t10_a_stolen_port_has_a_word_of_its_own() {
    let words: Vec<ErrorDetail> = every().iter().filter_map(TailnetFault::word).collect();
    assert_eq!(words, [ErrorDetail::InternalPortStolen]);
    assert_eq!(words[0].label(), "internal_port_stolen");
}
