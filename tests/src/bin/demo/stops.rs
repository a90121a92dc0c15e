//! What the demo shows, in order. Each stop does something to the mesh while requests go through it, and tells what it saw.

use crate::ask::{Caller, line};
use crate::document::{BURST, GROUPS, document, local};
use crate::effect::{Effect, answers_to_posts, effect};
use crate::mesh::Mesh;
use crate::show::{Show, number, seconds, share, short};
use crate::traffic::{Count, Traffic};
use ringway_tests::until;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

type Stop = fn(&mut Tour) -> Result<(), String>;

const STOPS: &[(&str, Stop)] = &[
    ("Every hop is mTLS, and everybody knows who calls", hops),
    ("An identity that is not let in", identity),
    ("A quota: exports, a burst of 5, then one a second", quota),
    ("A canary: one call of cart in ten goes to v2", canary),
    ("A push with a mistake changes nothing", mistake),
    ("A policy, in all proxies at once: nobody may change anything", policy),
    ("A rollback", back),
    ("Certificates rotate, and the root that they rest on", certificates),
    ("The daemon dies, and comes back", daemon),
    ("Through it all", all),
];

/// How long things may take on a machine that does other work too.
const PATIENCE: Duration = Duration::from_secs(30);
/// In so many requests both versions of cart, and both callers, are seen: one in ten is not seen once in a billion times.
const ENOUGH: u64 = 200;

/// A mesh, requests through it, and who watches.
pub(crate) struct Tour {
    pub(crate) mesh: Mesh,
    pub(crate) traffic: Traffic,
    pub(crate) show: Show,
}

impl Tour {
    pub(crate) fn take(&mut self) {
        for (title, stop) in STOPS {
            self.show.title(title);
            if let Err(error) = stop(self) {
                self.show.saw("it cannot be shown", error, false);
            }
            if let Some(ended) = self.mesh.ended() {
                return self.show.saw("all processes live", ended, false);
            }
        }
    }

    /// The traffic while something was done: none of it may fail.
    fn unharmed(&mut self, Count { all, failed, .. }: Count) {
        self.show.saw("requests meanwhile", told(all, failed), failed == 0 && all > 0);
    }
}

fn told(all: u64, failed: u64) -> String {
    format!("{}, {} failed", number(all), number(failed))
}

fn hops(Tour { mesh, show, .. }: &mut Tour) -> Result<(), String> {
    let answer = Caller::new(local(mesh.ports.public)).ask("GET", "/basket")?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let mut lines = text.lines();
    show.saw("curl http://GATEWAY/basket", answer.status, answer.status == 200);
    for (program, caller) in [("web", "edge"), ("cart v1", "web")] {
        let line = lines.next().unwrap_or_default();
        let good = line.starts_with(&format!("{program}: called by spiffe://shop/group/{caller}, certificate "));
        show.saw("", line, good);
    }
    let last = lines.next().unwrap_or_default();
    show.saw("", last, last == "three apples");
    let (seen, good) = logged(mesh);
    show.saw("the access log of cart's proxy", seen, good);
    let plain = Caller::new(local(mesh.ports.cart)).ask("GET", "/basket");
    let refused = plain.is_err();
    show.saw("without TLS at cart's proxy", plain.map_or_else(|error| error, |answer| line(&answer)), refused);
    Ok(())
}

/// The first request in the access log of cart's proxy: TLS and identity; whether they are as they should be.
fn logged(mesh: &Mesh) -> (String, bool) {
    let line = until(PATIENCE, || {
        let lines = mesh.place.lines("cart/access.log");
        lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["status"] == 200)
    });
    let line = line.unwrap_or_default();
    let [tls, identity] = ["tls", "source_identity"].map(|name| line[name].as_str().unwrap_or("-").to_owned());
    (format!("{tls}, {identity}"), tls == "TLSv1.3" && identity == "spiffe://shop/group/web")
}

fn identity(Tour { mesh, show, .. }: &mut Tour) -> Result<(), String> {
    for (who, port, status) in [("web", mesh.ports.out, 200), ("the gateway", mesh.ports.inside, 403)] {
        let answer = Caller::new(local(port)).ask("GET", "/cart/1")?;
        show.saw(&format!("{who} asks cart"), line(&answer), answer.status == status);
    }
    let identity = "spiffe://shop/group/edge";
    let said = mesh.must(&["explain", "cart", "GET", "/cart/1", "--listener", "in", "--identity", identity])?;
    show.saw(
        "ringwayctl explain cart GET /cart/1",
        said.first(),
        said.first().contains("denied, 403, by listener allow"),
    );
    Ok(())
}

fn quota(Tour { mesh, show, .. }: &mut Tour) -> Result<(), String> {
    const ASKED: usize = 20;
    let mut caller = Caller::new(local(mesh.ports.public));
    let begun = Instant::now();
    let answers = (0..ASKED).map(|_| caller.ask("GET", "/export")).collect::<Result<Vec<_>, _>>()?;
    // The burst, and one a second since.
    let most = BURST + begun.elapsed().as_secs() as usize + 1;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    let good = (BURST..=most).contains(&passed.len()) && refused.iter().all(|answer| answer.status == 429);
    let came =
        format!("{} times 200, {} times {}", passed.len(), refused.len(), refused.first().map_or(0, |a| a.status));
    show.saw(&format!("GET /export, {ASKED} times"), came, good);
    let last = refused.last().ok_or("nothing was refused")?;
    let field = |name: &str| last.field(name).unwrap_or("-").to_owned();
    let wait = field("retry-after").parse().map_err(|_| format!("Retry-After: {}", field("retry-after")))?;
    let says = format!("Retry-After: {wait}, RateLimit: {}", field("ratelimit"));
    show.saw("what the last one says", says, (1..=60).contains(&wait));
    std::thread::sleep(Duration::from_secs(wait));
    let later = caller.ask("GET", "/export")?;
    show.saw(&format!("{wait} s later"), line(&later), later.status == 200);
    Ok(())
}

fn canary(tour: &mut Tour) -> Result<(), String> {
    let Tour { mesh, traffic, show } = tour;
    let before = traffic.wait_for(ENOUGH);
    show.saw("requests before", split(before), before.v1 == before.all && before.all > 0);
    mesh.place.write("mesh.yaml", &document(&mesh.ports, 10, false))?;
    let said = mesh.must(&["apply", "mesh.yaml", "--wait", "--comment", "one in ten to v2"])?;
    show.saw("ringwayctl apply mesh.yaml --wait", said.last(), true);
    let after = traffic.wait_for(1000);
    // 100 of 1000 expected, deviation 9.5: five of them either way.
    let part = after.v2 as f64 / after.all.max(1) as f64;
    show.saw("requests after", split(after), (0.05..=0.15).contains(&part) && after.v1 + after.v2 == after.all);
    Ok(())
}

fn split(Count { all, v1, v2, .. }: Count) -> String {
    format!("{}: v1 {}, v2 {} ({})", number(all), number(v1), number(v2), share(v2, all))
}

fn mistake(Tour { mesh, show, .. }: &mut Tour) -> Result<(), String> {
    let (before, _) = mesh.standing()?;
    mesh.place.write("wrong.yaml", &document(&mesh.ports, 10, false).replace("cart-v2: 10", "crat-v2: 10"))?;
    let said = mesh.control(&["apply", "wrong.yaml"])?;
    show.saw("ringwayctl apply wrong.yaml", said.first(), said.code == Some(1));
    let good = said.last().starts_with("wrong.yaml:") && said.last().contains("did you mean `cart-v2`?");
    show.saw("", said.last(), good);
    let (after, proxies) = mesh.standing()?;
    let good = after == before && proxies == GROUPS.len();
    show.saw("in force", format!("version {after}, as before, in {proxies} of {} proxies", GROUPS.len()), good);
    Ok(())
}

fn policy(tour: &mut Tour) -> Result<(), String> {
    let before = answers_to_posts(&tour.mesh);
    tour.show.saw(POSTS, words(&before), before == [200; 4]);
    tour.mesh.place.write("freeze.yaml", &document(&tour.mesh.ports, 10, true))?;
    let arguments = ["apply", "freeze.yaml", "--comment", "nobody may change anything"];
    in_force(tour, "ringwayctl apply freeze.yaml", &arguments, 403)
}

fn back(tour: &mut Tour) -> Result<(), String> {
    let before = (tour.mesh.standing()?.0 - 1).to_string();
    in_force(tour, &format!("ringwayctl rollback {before}"), &["rollback", &before], 200)
}

/// What [`answers_to_posts`] asks.
const POSTS: &str = "POST: gateway, web, cart v1, cart v2";

/// Pushes, and shows when the push took effect in each proxy: as it answers a POST from then on.
fn in_force(tour: &mut Tour, typed: &str, arguments: &[&str], status: u16) -> Result<(), String> {
    let Tour { mesh, traffic, show } = tour;
    let (count, done) = traffic.during(|| effect(mesh, arguments, status));
    let (said, effects) = done?;
    show.saw(typed, said, true);
    let after = answers_to_posts(mesh);
    show.saw(POSTS, words(&after), after == [status; 4]);
    let times: Vec<_> = effects.iter().map(ToString::to_string).collect();
    let good = effects.iter().all(Effect::is_at_once);
    show.saw(&format!("seconds from Enter to {status}"), times.join(", "), good);
    tour.unharmed(count);
    Ok(())
}

fn words(statuses: &[u16]) -> String {
    statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn certificates(tour: &mut Tour) -> Result<(), String> {
    let Tour { mesh, traffic, show } = tour;
    let (old, old_roots) = (traffic.certificates(ENOUGH), roots(mesh)?);
    show.saw("certificates on the wire", shown(&old), callers(&old) == 2);
    let begun = Instant::now();
    let (count, done) = traffic.during(|| {
        let said = mesh.must(&["certs", "rotate", "--root"])?;
        let took = begun.elapsed();
        // Until nobody shows an old one any more.
        let new = until(PATIENCE, || {
            let seen = traffic.certificates(ENOUGH);
            (seen.is_disjoint(&old) && callers(&seen) == 2).then_some(seen)
        });
        Ok::<_, String>((said, took, new))
    });
    let (said, took, new) = done?;
    show.saw("ringwayctl certs rotate --root", format!("{}, after {}", said.last(), seconds(took)), true);
    show.saw("certificates on the wire", new.as_ref().map_or("still the old ones".to_owned(), shown), new.is_some());
    let new_roots = roots(mesh)?;
    let good = old_roots.len() == 1 && new_roots.len() == 1 && old_roots != new_roots;
    let told = |roots: BTreeSet<String>| roots.into_iter().collect::<Vec<_>>().join(" and ");
    show.saw("the root of all four proxies", format!("was {}, is {}", told(old_roots), told(new_roots)), good);
    tour.unharmed(count);
    Ok(())
}

/// How many identities showed a certificate.
fn callers(certificates: &BTreeSet<(String, String)>) -> usize {
    certificates.iter().map(|(identity, _)| identity).collect::<BTreeSet<_>>().len()
}

fn shown(certificates: &BTreeSet<(String, String)>) -> String {
    let one =
        |(identity, digits): &(String, String)| format!("{} {digits}", identity.rsplit('/').next().unwrap_or_default());
    certificates.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What the certificates of proxies rest on.
fn roots(mesh: &Mesh) -> Result<BTreeSet<String>, String> {
    let certificates = mesh.json(&["certs"])?;
    let lines = certificates["lines"].as_array().cloned().unwrap_or_default();
    let of_proxies = lines.iter().filter(|line| line["kind"] == "proxy");
    let roots: Vec<_> = of_proxies.filter_map(|line| line["chains_to"].as_str()).collect();
    if roots.len() != GROUPS.len() {
        return Err(format!("ringwayctl certs knows the roots of {} proxies", roots.len()));
    }
    Ok(roots.iter().map(|root| root.chars().take(8).collect()).collect())
}

fn daemon(tour: &mut Tour) -> Result<(), String> {
    let Tour { mesh, traffic, show } = tour;
    let before = mesh.json(&["history"])?;
    let (count, done) = traffic.during(|| {
        mesh.kill_daemon()?;
        std::thread::sleep(Duration::from_secs(2));
        mesh.control(&["status"])
    });
    let said = done?;
    show.saw("kill -9; ringwayctl status", short(said.last()), said.code == Some(3));
    show.saw("requests without it", told(count.all, count.failed), count.failed == 0 && count.all > 0);
    let begun = Instant::now();
    let (count, done) = traffic.during(|| {
        mesh.revive_daemon()?;
        let all = until(PATIENCE, || mesh.standing().ok().filter(|(_, proxies)| *proxies == GROUPS.len()));
        all.ok_or_else(|| "not all proxies have come back".to_owned())
    });
    let (version, proxies) = done?;
    let back = format!("{proxies} proxies are back after {}, with version {version}", seconds(begun.elapsed()));
    show.saw("started again", back, true);
    let after = mesh.json(&["history"])?;
    let versions = |history: &Value| history["versions"].as_array().map_or(0, Vec::len);
    let good = after == before && versions(&after) > 0;
    show.saw("ringwayctl history", format!("{} versions; before: {}", versions(&after), versions(&before)), good);
    tour.unharmed(count);
    Ok(())
}

fn all(Tour { mesh, traffic, show }: &mut Tour) -> Result<(), String> {
    let Count { all, failed, .. } = traffic.count();
    show.saw("requests through the gateway", told(all, failed), failed == 0 && all > 0);
    traffic.failures().iter().for_each(|failure| show.saw("a failure", failure, false));
    // Proxies tell who called them when somebody asks: the first answers are empty.
    let edges = until(PATIENCE, || edges(mesh).ok().filter(|edges| edges.len() == EDGES.len()));
    let edges = edges.ok_or("ringwayctl edges does not know who called whom")?;
    for ((edge, (allowed, denied)), (wanted, is_allowed)) in edges.iter().zip(EDGES) {
        let good = edge == wanted && if *is_allowed { *allowed > 0 } else { *allowed == 0 && *denied == 1 };
        show.saw(edge, format!("{} let in, {} denied", number(*allowed), number(*denied)), good);
    }
    Ok(())
}

/// Who called whom, in order, and whether it may.
const EDGES: &[(&str, bool)] = &[
    ("spiffe://shop/group/edge → cart", false),
    ("spiffe://shop/group/edge → web", true),
    ("spiffe://shop/group/web → cart", true),
    ("spiffe://shop/group/web → cart-v2", true),
];

/// Who called which group, and how often it was let in and denied.
fn edges(mesh: &Mesh) -> Result<BTreeMap<String, (u64, u64)>, String> {
    let answer = mesh.json(&["edges"])?;
    let mut edges = BTreeMap::new();
    for edge in answer["edges"].as_array().into_iter().flatten().filter(|edge| edge["source"] != "") {
        let word = |name: &str| edge[name].as_str().unwrap_or("-");
        let count = |name: &str| edge[name].as_u64().unwrap_or_default();
        let (allowed, denied) = edges.entry(format!("{} → {}", word("source"), word("group"))).or_default();
        *allowed += count("allowed");
        *denied += count("denied");
    }
    Ok(edges)
}
