//! Trials with the plan's own compiler: what is good is in force, what is not steps down.

use super::super::xds::Incoming;
use super::*;
use api::envoy_types::pb::google::protobuf::Any;
use api::prost::Message;
use plan::{Plan, World};

const WEB: &str = "
listeners:
  web: { address: '127.0.0.1:8080', routes: [ { name: all, to: cart } ] }
services:
  cart: { endpoints: ['10.0.0.1:80'] }
";

/// The resources of a document as a server would send them, of one version.
fn resources(text: &str) -> BTreeMap<Kind, Vec<Any>> {
    let from = api::translate(&api::load(text, "r.yaml").unwrap());
    fn all<M: Message>(kind: Kind, list: &[M]) -> (Kind, Vec<Any>) {
        (kind, list.iter().map(|one| api::xds::any(kind.type_url(), one)).collect())
    }
    BTreeMap::from([
        all(Kind::Cluster, &from.clusters),
        all(Kind::Endpoints, &from.endpoints),
        all(Kind::Listener, &from.listeners),
        all(Kind::Route, &from.routes),
    ])
}

fn update(kind: Kind, version: &str, resources: Vec<Any>) -> Update {
    let incoming = |resource: Any| Incoming { name: None, version: version.into(), resource };
    Update {
        kind,
        nonce: "n".into(),
        version: version.into(),
        resources: resources.into_iter().map(incoming).collect(),
        removed: Vec::new(),
        complete: false,
        refused: Vec::new(),
    }
}

/// A shelf and what is in force of it.
#[derive(Default)]
struct Stand {
    shelf: Shelf,
    plan: Option<Plan>,
}

impl Stand {
    fn trial(&mut self, again: bool) {
        self.shelf.begin(true, again);
        let base = Resources::default();
        let world = World::default();
        if let Some(rehearsal) = self.shelf.rehearsal(&base)
            && let Err(reasons) = plan::compile(&rehearsal, self.plan.as_ref(), 1, &world)
        {
            self.shelf.refuse_waiting(&reasons);
        }
        loop {
            match plan::compile(&self.shelf.trial(&base), self.plan.as_ref(), 1, &world) {
                Ok(plan) => break self.plan = Some(plan),
                Err(reasons) => assert!(self.shelf.lower(&reasons), "{reasons:?}"),
            }
        }
        self.shelf.commit();
    }

    fn take(&mut self, update: &Update) -> Vec<String> {
        let mut refused: Vec<String> = self.shelf.take(update).iter().map(ToString::to_string).collect();
        self.trial(true);
        refused.extend(self.shelf.refused_of(update).map(ToString::to_string));
        refused.dedup();
        refused
    }

    /// In the order of a server that makes before it breaks.
    fn take_all(&mut self, version: &str, text: &str) -> Vec<String> {
        let all = resources(text);
        all.into_iter().flat_map(|(kind, list)| self.take(&update(kind, version, list))).collect()
    }

    fn listeners(&self) -> Vec<String> {
        let plan = self.plan.as_ref().unwrap();
        plan.listeners.iter().map(|listener| format!("{}={}", listener.name, listener.address)).collect()
    }

    fn services(&self) -> Vec<&str> {
        self.plan.as_ref().unwrap().services.iter().map(|service| &*service.name).collect()
    }
}

#[test]
fn a_configuration_is_in_force_when_all_of_it_has_come() {
    let mut stand = Stand::default();
    let all = resources(WEB);
    for kind in [Kind::Cluster, Kind::Listener, Kind::Endpoints] {
        assert_eq!(stand.take(&update(kind, "1", all[&kind].clone())), [""; 0]);
        assert!(!stand.shelf.is_settled(), "{kind:?}");
        assert_eq!(stand.services(), ["cart"], "{kind:?}");
    }
    assert_eq!(stand.listeners(), [""; 0], "it waits for its routes");
    assert_eq!(stand.shelf.wanted()[&Kind::Route], ["web".to_owned()].into());
    assert_eq!(stand.shelf.wanted()[&Kind::Endpoints], ["cart".to_owned()].into());
    assert_eq!(stand.take(&update(Kind::Route, "1", all[&Kind::Route].clone())), [""; 0]);
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"]);
    assert!(stand.shelf.is_settled());
    assert_eq!(stand.shelf.versions()[&Kind::Route], [("web".to_owned(), "1".to_owned())].into());
}

#[test]
fn who_waits_for_long_is_told_with_what_is_missing() {
    let mut stand = Stand::default();
    let all = resources(WEB);
    stand.take(&update(Kind::Listener, "1", all[&Kind::Listener].clone()));
    let told = |stand: &Stand| stand.shelf.waiting().map(|(one, at)| format!("{one} ({at})")).collect::<Vec<_>>();
    assert!(!stand.shelf.second());
    assert_eq!(told(&stand), [""; 0], "it may be on its way");
    stand.trial(true);
    assert!(stand.shelf.second());
    assert_eq!(told(&stand), ["listener/web: waits for routes web, which is not there yet (1)"]);
    assert!(!stand.shelf.second(), "once");
    stand.take(&update(Kind::Route, "1", all[&Kind::Route].clone()));
    assert_eq!(told(&stand), [""; 0]);
}

/// A whole that is in part garbage: what seems to be missing from it may be the garbage.
#[test]
fn what_has_no_name_takes_nothing_away() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    for kind in [Kind::Listener, Kind::Cluster] {
        let garbage = Any { type_url: kind.type_url().into(), value: vec![0xff; 4] };
        let refused = stand.take(&Update { complete: true, ..update(kind, "2", vec![garbage]) });
        assert!(refused.len() == 1 && refused[0].contains("cannot be decoded"), "{refused:?}");
        assert_eq!((stand.listeners(), stand.services()), (vec!["web=127.0.0.1:8080".to_owned()], vec!["cart"]));
    }
    stand.take(&Update { complete: true, ..update(Kind::Listener, "3", vec![]) });
    assert_eq!(stand.listeners(), [""; 0]);
}

#[test]
fn a_refused_resource_is_replaced_by_its_last_good_one_and_the_others_are_taken() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let other = WEB.replace("8080", "8081") + "  pg: { endpoints: ['10.0.0.9:5432'] }\n";
    let mut all = resources(&other);
    let mut broken: api::envoy_types::pb::envoy::config::cluster::v3::Cluster =
        Message::decode(&all[&Kind::Cluster][0].value[..]).unwrap();
    assert_eq!(broken.name, "cart");
    broken.lb_policy = 77;
    broken.load_balancing_policy = None;
    all.get_mut(&Kind::Cluster).unwrap()[0] = api::xds::any(api::xds::CLUSTER, &broken);
    let refused = stand.take(&update(Kind::Cluster, "2", all[&Kind::Cluster].clone()));
    assert_eq!(refused, ["cluster/cart: lb_policy: 77 is not known"]);
    assert_eq!(stand.services(), ["cart", "pg"], "the old one, and the new one");
    assert_eq!(stand.shelf.versions()[&Kind::Cluster]["cart"], "1");
    assert_eq!(stand.shelf.refused().next().unwrap().1, "2");
    stand.take(&update(Kind::Listener, "2", all[&Kind::Listener].clone()));
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8081"]);
    assert_eq!(stand.shelf.refused().count(), 1, "it stays refused while others are taken");
    let good = resources(&other)[&Kind::Cluster].clone();
    assert_eq!(stand.take(&update(Kind::Cluster, "3", good)), [""; 0]);
    assert_eq!(stand.shelf.refused().count(), 0, "until a good one comes");
}

#[test]
fn a_refused_resource_without_a_good_one_is_left_out() {
    let mut stand = Stand::default();
    let two = WEB.replace("services:", "  db: { address: '127.0.0.1:5432', protocol: tcp, to: cart }\nservices:");
    let mut all = resources(&two);
    let mut db: api::envoy_types::pb::envoy::config::listener::v3::Listener =
        Message::decode(&all[&Kind::Listener][1].value[..]).unwrap();
    assert_eq!(db.name, "db");
    db.filter_chains[0].filters.clear();
    all.get_mut(&Kind::Listener).unwrap()[1] = api::xds::any(api::xds::LISTENER, &db);
    let refused: Vec<_> = all.into_iter().flat_map(|(kind, list)| stand.take(&update(kind, "1", list))).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("listener/db: filter_chains[0].filters: must end with"), "{refused:?}");
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"]);
    assert!(stand.shelf.is_settled());
}

#[test]
fn a_listener_that_waits_for_its_routes_is_judged_at_once() {
    let mut stand = Stand::default();
    let mut all = resources(WEB);
    let mut web: api::envoy_types::pb::envoy::config::listener::v3::Listener =
        Message::decode(&all[&Kind::Listener][0].value[..]).unwrap();
    web.address = None;
    let broken = vec![api::xds::any(api::xds::LISTENER, &web)];
    let refused = stand.take(&update(Kind::Listener, "1", broken));
    assert_eq!(refused.len(), 1, "an ACK waits for nothing else");
    assert!(refused[0].starts_with("listener/web: address"), "{refused:?}");
    let good = all.remove(&Kind::Listener).unwrap();
    assert_eq!(stand.take(&update(Kind::Listener, "2", good)), [""; 0]);
    stand.take(&update(Kind::Route, "2", all.remove(&Kind::Route).unwrap()));
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"]);
}

#[test]
fn a_listener_goes_on_as_it_was_until_its_new_routes_are_there() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let mut web: api::envoy_types::pb::envoy::config::listener::v3::Listener =
        Message::decode(&resources(&WEB.replace("8080", "8090"))[&Kind::Listener][0].value[..]).unwrap();
    let other = |name: &str, web: &mut api::envoy_types::pb::envoy::config::listener::v3::Listener| {
        use api::envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
        use api::envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::*;
        let filter = web.filter_chains[0].filters.last_mut().unwrap();
        let Some(ConfigType::TypedConfig(config)) = &mut filter.config_type else { unreachable!() };
        let mut manager: HttpConnectionManager = Message::decode(&config.value[..]).unwrap();
        let Some(http_connection_manager::RouteSpecifier::Rds(rds)) = &mut manager.route_specifier else {
            unreachable!()
        };
        name.clone_into(&mut rds.route_config_name);
        config.value = manager.encode_to_vec();
    };
    other("web-2", &mut web);
    assert_eq!(stand.take(&update(Kind::Listener, "2", vec![api::xds::any(api::xds::LISTENER, &web)])), [""; 0]);
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"]);
    assert_eq!(stand.shelf.wanted()[&Kind::Route], ["web".to_owned(), "web-2".to_owned()].into());
    let mut routes: api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration =
        Message::decode(&resources(WEB)[&Kind::Route][0].value[..]).unwrap();
    routes.name = "web-2".into();
    stand.take(&update(Kind::Route, "2", vec![api::xds::any(api::xds::ROUTE_CONFIGURATION, &routes)]));
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8090"]);
    assert_eq!(stand.shelf.wanted()[&Kind::Route], ["web-2".to_owned()].into());
    assert!(!stand.shelf.versions()[&Kind::Route].contains_key("web"), "what nobody names is forgotten");
}

#[test]
fn a_cluster_with_other_endpoints_waits_for_them_while_it_has_some() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let mut cart: api::envoy_types::pb::envoy::config::cluster::v3::Cluster =
        Message::decode(&resources(WEB)[&Kind::Cluster][0].value[..]).unwrap();
    cart.eds_cluster_config.get_or_insert_default().service_name = "cart-2".into();
    assert_eq!(stand.take(&update(Kind::Cluster, "2", vec![api::xds::any(api::xds::CLUSTER, &cart)])), [""; 0]);
    let endpoints = |stand: &Stand| stand.plan.as_ref().unwrap().services[0].balance.endpoints().len();
    assert_eq!(endpoints(&stand), 1, "the old ones");
    stand.take(&Update { removed: vec!["cart-2".into()], ..update(Kind::Endpoints, "2", vec![]) });
    assert_eq!(endpoints(&stand), 0, "there are none, and that is known");
}

#[test]
fn what_is_removed_is_gone_and_absence_removes_only_where_all_was_sent() {
    let mut stand = Stand::default();
    let two = WEB.to_owned() + "  pg: { endpoints: ['10.0.0.9:5432'] }\n";
    stand.take_all("1", &two);
    stand.take(&Update { removed: vec!["pg".into()], ..update(Kind::Cluster, "2", vec![]) });
    assert_eq!(stand.services(), ["cart"]);
    assert!(!stand.shelf.versions()[&Kind::Endpoints].contains_key("pg"));
    stand.take(&update(Kind::Route, "2", vec![]));
    stand.take(&Update { removed: vec!["web".into()], ..update(Kind::Route, "2", vec![]) });
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"], "routes go with their listener");
    stand.take(&Update { complete: true, ..update(Kind::Listener, "3", vec![]) });
    assert_eq!(stand.listeners(), [""; 0]);
    assert_eq!(stand.shelf.versions()[&Kind::Route], BTreeMap::new());
}

#[test]
fn an_address_that_cannot_be_bound_refuses_its_listener() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let moved = resources(&WEB.replace("8080", "8099"));
    stand.shelf.take(&update(Kind::Listener, "2", moved[&Kind::Listener].clone()));
    stand.shelf.begin(true, true);
    let taken = Rejection { kind: "listener", name: "web".into(), field: "address".into(), reason: "is taken".into() };
    assert!(stand.shelf.lower(std::slice::from_ref(&taken)));
    let trial = stand.shelf.trial(&Resources::default());
    assert_eq!(trial.listeners.len(), 1);
    assert_eq!(
        stand.shelf.refused().map(|(why, version)| (why.clone(), version)).collect::<Vec<_>>(),
        [(taken.clone(), "2")]
    );
    assert!(stand.shelf.lower(std::slice::from_ref(&taken)));
    assert!(stand.shelf.trial(&Resources::default()).listeners.is_empty(), "the good one cannot be bound either");
    assert!(!stand.shelf.lower(std::slice::from_ref(&taken)), "there is no third");
}

#[test]
fn garbage_is_refused_by_name_and_what_was_good_stays() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let named = |name: &str, resource: Any| Incoming { name: Some(name.into()), version: "2".into(), resource };
    let garbage = Any { type_url: api::xds::LISTENER.into(), value: b"\xff\xff\xff".to_vec() };
    let other_type = resources(WEB)[&Kind::Cluster][0].clone();
    let mut update = update(Kind::Listener, "2", vec![]);
    update.resources = vec![
        named("web", garbage),
        named("b", other_type),
        named("c", resources(WEB)[&Kind::Listener][0].clone()),
        named("d", Any { type_url: api::xds::LISTENER.into(), value: vec![] }),
    ];
    let refused = stand.take(&update);
    let begins = [
        "listener/web: cannot be decoded: ",
        "listener/b: is a type.",
        "listener/c: name: is \"web\" inside",
        "listener/d: name: must be given",
    ];
    for (told, begin) in refused.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told} does not begin with {begin}");
    }
    assert_eq!(stand.listeners(), ["web=127.0.0.1:8080"]);
    assert_eq!(stand.shelf.refused().count(), 4);
    assert_eq!(stand.shelf.versions()[&Kind::Listener], [("web".to_owned(), "1".to_owned())].into());
    stand.take_all("3", WEB);
    assert_eq!(stand.shelf.refused().filter(|(why, _)| &*why.name == "web").count(), 0);
}

#[test]
fn a_field_that_is_not_known_is_refused_where_it_matters_and_listed_elsewhere() {
    let mut stand = Stand::default();
    let mut all = resources(WEB);
    let newer = [0xfa, 0x7c, 3, b'n', b'e', b'w'];
    all.get_mut(&Kind::Cluster).unwrap()[0].value.extend(newer);
    all.get_mut(&Kind::Route).unwrap()[0].value.extend(newer);
    let refused: Vec<_> = all.into_iter().flat_map(|(kind, list)| stand.take(&update(kind, "1", list))).collect();
    assert_eq!(refused, ["route/web: 1999: is a field that is not known"]);
    assert_eq!(stand.shelf.ignored().collect::<Vec<_>>(), ["cluster/cart: 1999"]);
    assert_eq!(stand.listeners(), [""; 0]);
}

#[test]
fn without_an_identity_only_those_go_that_need_one() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let slot = stand.shelf.slot(Kind::Listener, "web").unwrap();
    let mut offer = (**slot.offered.as_ref().unwrap()).clone();
    offer.needs.identity = true;
    (slot.offered, slot.good) = (Some(Arc::new(offer)), None);
    stand.shelf.begin(false, true);
    assert!(stand.shelf.trial(&Resources::default()).listeners.is_empty());
    assert_eq!(stand.shelf.trial(&Resources::default()).clusters.len(), 1);
    assert_eq!(stand.shelf.refused().count(), 0, "it waits");
    stand.shelf.begin(true, true);
    assert_eq!(stand.shelf.trial(&Resources::default()).listeners.len(), 1);
}

#[test]
fn what_is_in_force_comes_back_from_a_file() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    let mut next = resources(&WEB.replace("8080", "8081"));
    let mut broken: api::envoy_types::pb::envoy::config::listener::v3::Listener =
        Message::decode(&next[&Kind::Listener][0].value[..]).unwrap();
    broken.filter_chains.clear();
    next.insert(Kind::Listener, vec![api::xds::any(api::xds::LISTENER, &broken)]);
    stand.take(&update(Kind::Listener, "2", next[&Kind::Listener].clone()));
    let file = stand.shelf.generation("1", "spiffe://shop/web");
    let (shelf, version) = Shelf::restore(&file, "spiffe://shop/web").unwrap();
    assert_eq!(version, "1");
    let mut again = Stand { shelf, plan: None };
    again.trial(true);
    assert_eq!(again.listeners(), ["web=127.0.0.1:8080"], "not what was refused");
    assert_eq!(again.shelf.versions(), stand.shelf.versions());
    assert!(!again.shelf.is_settled(), "the daemon has said nothing yet");
}

/// The same endpoints' message with a name, as delta has it.
fn named(name: &str, version: &str, text: &str) -> Update {
    let resource = resources(text).remove(&Kind::Endpoints).unwrap().remove(0);
    let incoming = Incoming { name: Some(name.into()), version: version.into(), resource };
    Update { resources: vec![incoming], ..update(Kind::Endpoints, version, Vec::new()) }
}

#[test]
fn endpoints_that_are_all_that_is_new_need_no_trial() {
    let mut stand = Stand::default();
    stand.take_all("1", WEB);
    for (version, address) in [("2", "10.0.0.2:80"), ("3", "10.0.0.3:80")] {
        let came = named("cart", version, &WEB.replace("10.0.0.1:80", address));
        assert!(stand.shelf.take(&came).is_empty());
        let changed = stand.shelf.endpoints_alone(&came).expect("nothing else is new");
        assert_eq!(changed.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cart"]);
        let before = stand.plan.take().unwrap();
        let plan = plan::with_endpoints(&before, &changed, 7, &World::default()).unwrap();
        let is = plan.services[0].balance.endpoints().map(|(one, _)| one.address().to_string()).collect::<Vec<_>>();
        assert_eq!(is, [address]);
        stand.plan = Some(plan);
        let names: Vec<_> = stand.shelf.commit_endpoints(&came).map(|one| one.cluster_name.clone()).collect();
        assert_eq!(names, ["cart"]);
        assert_eq!(stand.shelf.versions()[&Kind::Endpoints], [("cart".to_owned(), version.to_owned())].into());
        assert_eq!(stand.shelf.trial(&Resources::default()).endpoints.len(), 1);
    }
    let wrong = Update { removed: vec!["other".into()], ..named("cart", "4", WEB) };
    stand.shelf.take(&wrong);
    assert!(stand.shelf.endpoints_alone(&wrong).is_none(), "something is gone");
    stand.trial(true);
    // A cluster that is refused, or anything else that is not as it should be: then it takes a trial.
    let broken = Any { type_url: api::xds::CLUSTER.into(), value: vec![0xff] };
    let refused = Update {
        resources: vec![Incoming { name: Some("cart".into()), version: "5".into(), resource: broken }],
        ..update(Kind::Cluster, "5", Vec::new())
    };
    stand.take(&refused);
    let came = named("cart", "6", WEB);
    stand.shelf.take(&came);
    assert!(stand.shelf.endpoints_alone(&came).is_none(), "something is refused");
}
