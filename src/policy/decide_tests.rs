//! What is meant, may it be reached, which way does it lead: case by case.
#![forbid(unsafe_code)]

use super::super::{Mode, Rules, Suffix};
use super::*;

/// What a gateway knows.
#[derive(Default)]
struct Known {
    answered: Option<Name>,
    may_leave_tailnet: bool,
}

/// 198.18.0.1 is db.corp.example, the rest of its network nobody; 10.50.0.0/16 is in the tailnet.
impl KnownNames for Known {
    fn synthetic_use(&self, address: IpAddr) -> SyntheticUse {
        match address.to_string().as_str() {
            "198.18.0.1" => SyntheticUse::Assigned(name("db.corp.example")),
            text if text.starts_with("198.18.") => SyntheticUse::Unassigned,
            _ => SyntheticUse::NotSynthetic,
        }
    }

    fn answered_name(&self, client: IpAddr, _address: IpAddr) -> Option<Name> {
        self.answered.clone().filter(|_| client.is_loopback())
    }

    fn qualified_name(&self, asked: &Name) -> Option<Name> {
        asked.is_bare().then(|| name(&format!("{asked}.corp.example")))
    }
}

impl RouteTable for Known {
    fn route(&self, address: Option<IpAddr>) -> Option<Route> {
        Some(match address?.to_string().starts_with("10.50.") {
            true => Route::Tailnet,
            false => Route::Outside,
        })
    }

    fn may_leave_tailnet(&self) -> bool {
        self.may_leave_tailnet
    }
}

fn name(text: &str) -> Name {
    Name::parse(text.as_bytes()).unwrap()
}

fn target(text: &str) -> Target {
    Target::parse_authority(text.as_bytes(), None).unwrap()
}

fn policy(mode: Mode, nets: &[&str]) -> Policy {
    Policy::new(Rules {
        mode,
        suffixes: Suffix::parse_list("corp.example").unwrap(),
        globs: Vec::new(),
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
        deny_nets: vec!["10.50.9.0/24".parse().unwrap()],
        require_sni: false,
    })
    .unwrap()
}

fn with_context<T>(
    policy: &Policy,
    known: &Known,
    ask: impl FnOnce(&DecisionContext<'_>) -> T,
) -> T {
    let local_addresses = LocalAddresses::default();
    ask(&DecisionContext { policy, local_addresses: &local_addresses, names: known, routes: known })
}

fn decided(policy: &Policy, known: &Known, asked: AskedTarget<'_>) -> Decision {
    with_context(policy, known, |context| decide(&asked, context))
}

/// The effective target, and whether it is admitted.
fn meant(decision: &Decision) -> (String, bool) {
    (decision.effective_target.to_string(), decision.permission.is_ok())
}

#[test]
fn b21_a_bare_name_is_the_whole_one() {
    let policy = policy(Mode::Enforce, &[]);
    let asked = target("db:5432");
    let decision = decided(&policy, &Known::default(), AskedTarget::unconnected(&asked));
    assert_eq!(meant(&decision), ("db.corp.example:5432".to_owned(), true));
    assert_eq!(decision.source, TargetSource::Qualified);
}

#[test]
fn a_synthetic_address_is_its_name_or_nobody() {
    let policy = policy(Mode::Off, &[]);
    let known = Known::default();
    let asked = target("198.18.0.1:5432");
    let decision = decided(&policy, &known, AskedTarget::unconnected(&asked));
    assert_eq!(meant(&decision), ("db.corp.example:5432".to_owned(), true));
    assert_eq!(decision.pinned, None, "any address of its name will do");
    let asked = target("198.18.0.2:5432");
    let decision = decided(&policy, &known, AskedTarget::unconnected(&asked));
    assert_eq!(decision.policy, None);
    let address = "198.18.0.2".parse().unwrap();
    assert_eq!(decision.permission, Err(Refused::UnassignedSynthetic { address }));
}

#[test]
fn b18_an_answer_names_the_address_of_who_got_it_where_policy_allows_the_name() {
    let policy = policy(Mode::Enforce, &["192.0.2.0/24"]);
    let (here, elsewhere) = ("127.0.0.1".parse().ok(), "192.0.2.9".parse().ok());
    let asked = target("192.0.2.1:443");
    let by = |known: &Known, client| {
        let asked = AskedTarget { client, ..AskedTarget::unconnected(&asked) };
        decided(&policy, known, asked)
    };
    let known = Known { answered: Some(name("db.corp.example")), ..Known::default() };
    let decision = by(&known, here);
    assert_eq!(meant(&decision), ("db.corp.example:443".to_owned(), true));
    assert_eq!(decision.pinned, asked.host.address());
    assert_eq!(meant(&by(&known, elsewhere)), ("192.0.2.1:443".to_owned(), true));
    let known = Known { answered: Some(name("evil.example")), ..Known::default() };
    assert_eq!(meant(&by(&known, here)), ("192.0.2.1:443".to_owned(), true));
}

#[test]
fn b17_b18_a_name_in_the_first_bytes() {
    let (good, evil) = (name("db.corp.example"), name("evil.example"));
    let asked = target("192.0.2.1:443");
    let by = |policy: &Policy, name: &Name, by| {
        let asked = AskedTarget { named: Some((name, by)), ..AskedTarget::unconnected(&asked) };
        decided(policy, &Known::default(), asked)
    };
    let closed = policy(Mode::Enforce, &[]);
    let decision = by(&closed, &good, NamedBy::Sni);
    assert_eq!(meant(&decision), ("db.corp.example:443".to_owned(), true));
    assert_eq!(decision.without_name, None, "the address alone is not admitted");
    assert_eq!(by(&closed, &evil, NamedBy::Sni).permission, Err(Refused::Denied));

    let open = policy(Mode::Enforce, &["192.0.2.0/24"]);
    let decision = by(&open, &good, NamedBy::HttpHost);
    let without_name = decision.without_name.unwrap();
    assert_eq!(meant(&without_name), ("192.0.2.1:443".to_owned(), true));
    assert_eq!(by(&open, &evil, NamedBy::Sni).permission, Err(Refused::ServerName));
    assert_eq!(by(&open, &evil, NamedBy::HttpHost).permission, Err(Refused::Denied));

    let logged = by(&policy(Mode::Log, &[]), &evil, NamedBy::Sni);
    assert_eq!(logged.effective_target, target("evil.example:443"), "it is written down");
    assert_eq!(logged.policy.unwrap().verdict, Verdict::WouldDeny);
    assert_eq!(*logged.permission.unwrap().get(), asked, "and carried to where it was going");
}

#[test]
fn first_bytes_are_of_use_where_a_name_could_change_something() {
    let uses = |mode, nets: &[&str], text: &str| {
        let (policy, asked) = (policy(mode, nets), target(text));
        with_context(&policy, &Known::default(), |context| {
            decide(&AskedTarget::unconnected(&asked), context).use_of_first_bytes(context)
        })
    };
    assert_eq!(uses(Mode::Enforce, &[], "192.0.2.1:443"), FirstBytesUse::MustName);
    assert_eq!(uses(Mode::Enforce, &["192.0.2.0/24"], "192.0.2.1:443"), FirstBytesUse::MayName);
    assert_eq!(uses(Mode::Off, &[], "10.50.9.1:443"), FirstBytesUse::Nothing, "no mode dials it");
    assert_eq!(uses(Mode::Off, &[], "198.18.0.1:443"), FirstBytesUse::Nothing, "it is a name");
    assert_eq!(uses(Mode::Off, &[], "198.18.0.2:443"), FirstBytesUse::Nothing, "it is nobody");
}

/// What is dialled of `found`, or why nothing is.
fn dialled(known: &Known, found: &[&str], pinned: Option<&str>) -> Result<Vec<String>, Refused> {
    let policy = policy(Mode::Enforce, &[]);
    let asked = target("db.corp.example:1");
    let admitted = decided(&policy, known, AskedTarget::unconnected(&asked)).permission.unwrap();
    let found: Vec<IpAddr> = found.iter().map(|ip| ip.parse().unwrap()).collect();
    let pinned = pinned.map(|ip| ip.parse().unwrap());
    let decisions = with_context(&policy, known, |context| {
        decide_addresses(&admitted, pinned, &found, context)
    });
    match decisions.decisive_refusal() {
        Some((_, refused)) => Err(refused),
        None => {
            let permissions = decisions.into_permissions();
            Ok(permissions.iter().map(|one| one.get().ip.to_string()).collect())
        }
    }
}

#[test]
fn what_is_outside_is_kept_out_where_that_is_asked_for() {
    let (inside, outside, denied) = ("10.50.0.7", "192.0.2.1", "10.50.9.1");
    let refusing = Known::default();
    let address = outside.parse().unwrap();
    assert_eq!(dialled(&refusing, &[inside, outside], None), Ok(vec![inside.to_owned()]));
    assert_eq!(dialled(&refusing, &[outside], None), Err(Refused::OutsideTailnet { address }));
    // What policy would let pass says why, not what it refuses anyway.
    assert_eq!(
        dialled(&refusing, &[denied, outside, denied], None),
        Err(Refused::OutsideTailnet { address })
    );
    let open = Known { may_leave_tailnet: true, ..Known::default() };
    assert_eq!(dialled(&open, &[denied, outside], None), Ok(vec![outside.to_owned()]));
    assert_eq!(dialled(&open, &[denied], None), Err(Refused::Denied));
}

#[test]
fn the_address_a_client_chose_is_dialled_if_it_is_the_names() {
    let open = Known { may_leave_tailnet: true, ..Known::default() };
    let found = ["10.50.0.7", "10.50.0.8"];
    assert_eq!(dialled(&open, &found, Some("10.50.0.8")), Ok(vec!["10.50.0.8".to_owned()]));
    assert_eq!(dialled(&open, &found, Some("192.0.2.1")).unwrap().len(), 2);
}

#[test]
fn b17_the_tunnels_own_name_says_nothing_new() {
    let policy = policy(Mode::Enforce, &[]);
    let tunnel = target("db.corp.example:443");
    let verdict = |tunnel: &Target, host: &str| {
        let host = Host::parse(host.as_bytes()).unwrap();
        let decided = with_context(&policy, &Known::default(), |context| {
            decide_server_name(tunnel, RequestedServer::Host(&host), context)
        });
        decided.map(|decided| decided.verdict)
    };
    assert_eq!(verdict(&tunnel, "db.corp.example"), None);
    assert_eq!(verdict(&tunnel, "db"), None, "the same, whole");
    assert_eq!(verdict(&tunnel, "evil.example"), Some(Verdict::Deny));
    let by_address = target("192.0.2.1:443");
    assert_eq!(verdict(&by_address, "192.0.2.1"), Some(Verdict::Allow), "as if nobody were named");
}
