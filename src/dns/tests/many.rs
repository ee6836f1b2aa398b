//! Many who ask, and those who leave.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::scripted_nameserver::{DnsReply, Standin, addresses, asked, until};
use super::{Lab, NameError, PATIENT, found, zone};
use crate::labels::DnsRoute;

/// A server that answers when let: each permit is an answer.
async fn gated() -> (Standin, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let server = Standin::new(move |question| {
        vec![DnsReply::When(Arc::clone(&held), addresses(question, &["10.0.0.1"]))]
    });
    (server.await, gate)
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn d10_a_thousand_who_ask_for_one_name_are_one_question() {
    let (server, gate) = gated().await;
    let lab = Lab::new(&[&server]);
    let all = join_all((0..1000).map(|_| lab.ask("db.corp.example")));
    let release = async {
        server.until_asked(2).await;
        gate.add_permits(2);
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(answers.iter().all(|answer| *answer == found(&["10.0.0.1"], DnsRoute::Split)));
    assert_eq!(server.questions(), 2, "one of each type");
}

#[tokio::test]
async fn d10_of_a_thousand_names_sixty_four_are_asked_at_once() {
    let (server, gate) = gated().await;
    let lab = Lab::new(&[&server]);
    let names: Vec<String> = (0..1000).map(|n| format!("n{n}.corp.example")).collect();
    let all = join_all(names.iter().map(|name| lab.ask(name)));
    let release = async {
        server.until_asked(128).await;
        gate.add_permits(2000);
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(answers.iter().all(|answer| *answer == found(&["10.0.0.1"], DnsRoute::Split)));
    assert_eq!((server.questions(), server.most_unanswered()), (2000, 128));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn d3_six_hundred_who_wait_do_not_delay_a_remembered_name() {
    let server = Standin::new(|question| match asked(question).as_str() {
        "known.corp.example" => vec![DnsReply::Say(addresses(question, &["10.0.0.1"]))],
        _ => vec![DnsReply::Silence],
    });
    let server = server.await;
    let lab = Lab::of(zone(1), &[&server], PATIENT);
    lab.ask("known.corp.example").await.unwrap();
    let names: Vec<String> = (0..600).map(|n| format!("n{n}.corp.example")).collect();
    let mut waiting = Box::pin(join_all(names.iter().map(|name| lab.ask(name))));
    assert!((&mut waiting).now_or_never().is_none());
    let start = Instant::now();
    let known = lab.ask("known.corp.example").now_or_never();
    assert_eq!(known, Some(found(&["10.0.0.1"], DnsRoute::Cache)), "without waiting at all");
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
}

#[tokio::test]
async fn d10_a_dead_nameserver_holds_up_no_other_domain() {
    let (dead, alive) = (
        Standin::new(|_| vec![DnsReply::Silence]).await,
        Standin::new(|question| vec![DnsReply::Say(addresses(question, &["10.0.0.1"]))]).await,
    );
    let mut zone = zone(1);
    zone.routes.push((super::name("lab.example"), vec![super::inside(2)]));
    let lab = Lab::of(zone, &[&dead, &alive], PATIENT);
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.corp.example")).collect();
    let mut waiting = Box::pin(join_all(names.iter().map(|name| lab.ask(name))));
    assert!((&mut waiting).now_or_never().is_none());
    assert_eq!(lab.ask("db.lab.example").await, found(&["10.0.0.1"], DnsRoute::Split));
}

#[tokio::test]
async fn r17_who_leaves_leaves_nothing_behind() {
    let server = Standin::new(|_| vec![DnsReply::Silence]).await;
    let before = alive_tasks();
    let lab = Lab::new(&[&server]);
    let names: Vec<String> = (0..100).map(|n| format!("n{n}.corp.example")).collect();
    for patience in [0, 128] {
        let mut waiting = Box::pin(join_all(names.iter().map(|name| lab.ask(name))));
        tokio::select! {
            biased;
            _ = &mut waiting => unreachable!("nobody answers"),
            () = server.until_asked(patience) => {}
        }
        drop(waiting);
        server.until_left().await;
        until("end of tasks", || alive_tasks() <= before).await;
    }
}

#[tokio::test]
async fn a_dropped_resolver_leaves_nothing_behind() {
    let server = Standin::new(|question| vec![DnsReply::Say(addresses(question, &["10.0.0.1"]))]);
    let server = server.await;
    let before = alive_tasks();
    let lab = Lab::new(&[&server]);
    lab.ask("db.corp.example").await.unwrap();
    let start = Instant::now();
    drop(lab);
    server.until_left().await;
    until("end of tasks", || alive_tasks() <= before).await;
    assert!(start.elapsed() < Duration::from_secs(1), "it waits for no idle time");
}

#[tokio::test]
async fn d3_who_joins_late_waits_no_longer_than_the_question() {
    let server = Standin::new(|_| vec![DnsReply::Silence]).await;
    let after = Duration::from_millis(200);
    let lab = Lab::of(zone(1), &[&server], after);
    let first = lab.ask("db.corp.example");
    let late = async {
        server.until_asked(2).await;
        let start = Instant::now();
        (lab.ask("db.corp.example").await, start.elapsed())
    };
    let (first, (late, waited)) = tokio::join!(first, late);
    assert!(matches!(&first, Err(NameError::Timeout { .. })));
    assert_eq!(first, late);
    assert!(waited < 5 * after, "{waited:?}");
    assert_eq!(server.questions(), 2);
}
