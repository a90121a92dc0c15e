//! What the daemon has sent, and what of it is in force: resource by resource, so that a bad one does not hold back the others.
//!
//! ```text
//!            ┌ offered: the newest ─ needs something that is not there yet, or is refused ─┐
//! resource ──┤                                                                           ▼
//!            └ good: the last that was in force ◄──────────────────────── takes its place, or nothing does
//! ```
//! A trial begins with the newest of everything. Whoever compiles says what is wrong with it, by name; each of those steps down
//! ([`Shelf::lower`]), until the rest is good. What is in force in the end becomes the last good one ([`Shelf::commit`]).

use super::generation::{self, Kept};
use super::offer::{Content, Offer};
use super::xds::{Kind, Names, Update, Versions};
use api::Resources;
use api::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use plan::Rejection;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// After so many seconds, waiting is worth a word: until then what is missing may be on its way.
const LONG_S: u32 = 2;
/// Endpoints of so many services may change at once without a trial of everything.
const MOST_ALONE: usize = 64;

/// All resources.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    slots: BTreeMap<Kind, BTreeMap<String, Slot>>,
    /// Of what is asked for by name: what there is none of.
    absent: BTreeSet<(Kind, String)>,
    /// Kinds that were answered at all.
    heard: BTreeSet<Kind>,
    /// There is something to prove who we are with.
    identity: bool,
    /// The newest of everything is in force; and it was before the last update came.
    calm: bool,
    was_calm: bool,
}

/// One resource, by name.
#[derive(Debug, Default)]
struct Slot {
    /// The newest, unless it cannot even be read.
    offered: Option<Arc<Offer>>,
    /// The last that was in force.
    good: Option<Arc<Offer>>,
    /// What is in force now: one of them, or nothing.
    in_force: Option<Arc<Offer>>,
    /// Why the newest is not in force, and its version.
    refused: Vec<Rejection>,
    refused_version: String,
    /// The push that the newest came with; empty where the server tells none.
    push: String,
    /// What the trial has.
    choice: Choice,
    /// It waits for something else.
    waits: bool,
    /// For so many seconds.
    waited_s: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Choice {
    #[default]
    Offered,
    Good,
    Nothing,
}

impl Slot {
    fn chosen(&self) -> Option<&Arc<Offer>> {
        match self.choice {
            Choice::Offered => self.offered.as_ref(),
            Choice::Good => self.good.as_ref(),
            Choice::Nothing => None,
        }
    }

    /// One step down: to the last good one, if that is another, or to nothing. False: there is no step left.
    fn lower(&mut self) -> bool {
        let other = |good: &Arc<Offer>| self.offered.as_ref().is_none_or(|offered| offered.packed != good.packed);
        self.choice = match self.choice {
            Choice::Offered if self.good.as_ref().is_some_and(other) => Choice::Good,
            Choice::Offered | Choice::Good => Choice::Nothing,
            Choice::Nothing => return false,
        };
        true
    }

    /// By what whoever pushed knows it: the push, or the version of the resource where there is none.
    fn known_as<'a>(&'a self, version: &'a str) -> &'a str {
        if self.push.is_empty() { version } else { &self.push }
    }

    fn refuse(&mut self, version: &str, rejection: &Rejection) {
        if self.refused.is_empty() {
            version.clone_into(&mut self.refused_version);
        }
        if !self.refused.contains(rejection) {
            self.refused.push(rejection.clone());
        }
    }
}

impl Shelf {
    /// Takes what came. What cannot be read is refused at once; the rest is judged by a trial.
    pub(crate) fn take(&mut self, update: &Update) -> Vec<Rejection> {
        let kind = update.kind;
        self.heard.insert(kind);
        self.was_calm = std::mem::take(&mut self.calm);
        let mut refused: Vec<(String, Rejection)> =
            update.refused.iter().map(|rejection| (update.version.clone(), rejection.clone())).collect();
        let (mut offers, mut twice) = (BTreeMap::new(), BTreeSet::new());
        for incoming in &update.resources {
            match Offer::read(kind, incoming.clone()) {
                Ok(offer) => {
                    if let Some(other) = offers.insert(offer.name.clone(), offer) {
                        twice.insert(other.name);
                    }
                }
                Err(reasons) => refused.extend(reasons.into_iter().map(|reason| (incoming.version.clone(), reason))),
            }
        }
        for name in twice {
            let version = offers.remove(&name).map_or_else(String::new, |offer| offer.version);
            refused.push((version, super::xds::rejection(kind, &name, "stands in the response twice")));
        }
        self.remove(update, &offers, &refused);
        let slots = self.slots.entry(kind).or_default();
        for (name, offer) in offers {
            self.absent.remove(&(kind, name.clone()));
            let slot = slots.entry(name).or_default();
            slot.refused.clear();
            slot.push.clone_from(&update.version);
            slot.offered = Some(Arc::new(offer));
        }
        for (version, rejection) in &refused {
            if !rejection.name.is_empty() {
                let slot = slots.entry(rejection.name.to_string()).or_default();
                if slot.offered.take().is_some() || slot.refused_version != *version {
                    slot.refused.clear();
                    slot.push.clone_from(&update.version);
                }
                slot.refuse(version, rejection);
            }
        }
        refused.into_iter().map(|(_, rejection)| rejection).collect()
    }

    /// Takes away what is no more. What others still name stays until they do not: it goes with them.
    fn remove(&mut self, update: &Update, offers: &BTreeMap<String, Offer>, refused: &[(String, Rejection)]) {
        let slots = self.slots.entry(update.kind).or_default();
        let mut gone: Vec<String> = update.removed.clone();
        // One that cannot be read may be any of those that seem to be absent.
        let all_have_names = refused.iter().all(|(_, one)| !one.name.is_empty());
        if update.complete && all_have_names {
            let is_there =
                |name: &String| offers.contains_key(name) || refused.iter().any(|(_, one)| *one.name == **name);
            gone.extend(slots.keys().filter(|name| !is_there(name)).cloned());
        }
        for name in gone {
            if update.kind.is_wildcard() {
                slots.remove(&name);
            } else if slots.get(&name).is_none_or(|slot| slot.good.is_none()) {
                slots.remove(&name);
                self.absent.insert((update.kind, name));
            }
        }
    }

    /// A shelf with what was in force when the file was written, to be tried; and the push that it was.
    ///
    /// # Errors
    /// Why the file is refused.
    pub(crate) fn restore(file: &[u8], identity: &str) -> Result<(Shelf, String), String> {
        let Kept { version, offers } = generation::read(file, identity)?;
        let mut shelf = Shelf::default();
        for (kind, offer) in offers {
            let slot = Slot { offered: Some(Arc::new(offer.clone())), push: version.clone(), ..Slot::default() };
            shelf.slots.entry(kind).or_default().insert(offer.name, slot);
        }
        Ok((shelf, version))
    }

    /// Begins a trial. With `again`, what was refused is tried once more.
    pub(crate) fn begin(&mut self, identity: bool, again: bool) {
        self.identity = identity;
        for slot in self.slots.values_mut().flat_map(BTreeMap::values_mut) {
            slot.waits = false;
            slot.choice = Choice::Offered;
            if slot.offered.is_none() || (!again && !slot.refused.is_empty()) {
                slot.choice = if slot.good.is_some() { Choice::Good } else { Choice::Nothing };
            }
        }
        if again {
            let readable = self.slots.values_mut().flat_map(BTreeMap::values_mut).filter(|slot| slot.offered.is_some());
            readable.for_each(|slot| slot.refused.clear());
        }
        self.hold_back();
    }

    /// Whatever needs what the trial does not have steps down, without being refused.
    fn hold_back(&mut self) {
        for kind in [Kind::Cluster, Kind::Listener] {
            loop {
                let waiting: Vec<String> =
                    self.of(kind).filter(|(_, slot)| !self.has_needs(slot)).map(|(name, _)| name.clone()).collect();
                if waiting.is_empty() {
                    break;
                }
                for name in waiting {
                    if let Some(slot) = self.slot(kind, &name) {
                        slot.waits |= slot.choice == Choice::Offered;
                        slot.lower();
                    }
                }
            }
        }
    }

    /// Whether all that the chosen one needs is in the trial.
    fn has_needs(&self, slot: &Slot) -> bool {
        slot.chosen().is_none_or(|offer| self.missing(slot, offer).next().is_none())
    }

    /// What one needs that the trial does not have, in words. A cluster without endpoints answers 503 either way, so only a
    /// last good one, which has some, is a reason to wait for them.
    fn missing<'a>(&'a self, slot: &'a Slot, offer: &'a Offer) -> impl Iterator<Item = String> + 'a {
        let has = |kind: Kind, name: &str| {
            self.slots.get(&kind).and_then(|slots| slots.get(name)).is_some_and(|slot| slot.chosen().is_some())
        };
        let is_first = slot.good.as_ref().is_none_or(|good| good.packed == offer.packed);
        let is_absent = |name: &String| self.absent.contains(&(Kind::Endpoints, name.clone()));
        let needs = &offer.needs;
        let routes = needs.routes.iter().filter(move |name| !has(Kind::Route, name));
        let secrets = needs.secrets.iter().filter(move |name| !has(Kind::Secret, name));
        let endpoints = needs.endpoints.iter();
        let endpoints = endpoints.filter(move |name| !is_first && !has(Kind::Endpoints, name) && !is_absent(name));
        let own = (needs.identity && !self.identity).then(|| "a certificate of the proxy's own".to_owned());
        routes
            .map(|name| format!("routes {name}"))
            .chain(secrets.map(|name| format!("secret {name}")))
            .chain(endpoints.map(|name| format!("endpoints {name}")))
            .chain(own)
    }

    /// The trial's resources, with what belongs to the process, and our own secrets, from `base`.
    pub(crate) fn trial(&self, base: &Resources) -> Resources {
        let mut resources = base.clone();
        let chosen = self.slots.values().flat_map(BTreeMap::values).filter_map(Slot::chosen);
        chosen.for_each(|offer| put(&mut resources, &offer.content));
        resources
    }

    /// As [`Shelf::trial`], but with the newest of those listeners that wait for routes alone, so that their own fields are
    /// judged now: the routes are blank. None: there are no such listeners.
    pub(crate) fn rehearsal(&mut self, base: &Resources) -> Option<Resources> {
        let has = |kind: Kind, name: &String| {
            self.slots.get(&kind).is_some_and(|slots| slots.get(name).is_some_and(|slot| slot.chosen().is_some()))
        };
        let waits_for_routes = |slot: &Slot| {
            let Some(offer) = slot.offered.as_ref().filter(|_| slot.waits && slot.refused.is_empty()) else {
                return false;
            };
            offer.needs.secrets.iter().all(|name| has(Kind::Secret, name)) && (self.identity || !offer.needs.identity)
        };
        let names: Vec<String> =
            self.of(Kind::Listener).filter(|(_, slot)| waits_for_routes(slot)).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return None;
        }
        let before: Vec<(String, Choice)> = names
            .into_iter()
            .filter_map(|name| {
                let slot = self.slot(Kind::Listener, &name)?;
                Some((name, std::mem::replace(&mut slot.choice, Choice::Offered)))
            })
            .collect();
        let mut resources = self.trial(base);
        let there: BTreeSet<String> = resources.routes.iter().map(|routes| routes.name.clone()).collect();
        let wanted = before.iter().filter_map(|(name, _)| self.slots[&Kind::Listener][name].offered.as_ref());
        let missing: BTreeSet<String> =
            wanted.flat_map(|offer| offer.needs.routes.iter()).filter(|name| !there.contains(*name)).cloned().collect();
        resources.routes.extend(missing.into_iter().map(|name| RouteConfiguration { name, ..Default::default() }));
        for (name, choice) in before {
            if let Some(slot) = self.slot(Kind::Listener, &name) {
                slot.choice = choice;
            }
        }
        Some(resources)
    }

    /// What a rehearsal found wrong with listeners that wait.
    pub(crate) fn refuse_waiting(&mut self, rejections: &[Rejection]) {
        for rejection in rejections {
            if let Some(slot) = self.slot(Kind::Listener, &rejection.name).filter(|slot| slot.waits)
                && let Some(offer) = slot.offered.clone()
            {
                slot.refuse(&offer.version, rejection);
            }
        }
        for slot in self.slots.entry(Kind::Listener).or_default().values_mut().filter(|slot| !slot.refused.is_empty()) {
            slot.waits = false;
        }
    }

    /// Whatever is named steps down. False: nothing could, so that a trial without it is not to be had.
    pub(crate) fn lower(&mut self, rejections: &[Rejection]) -> bool {
        let mut stepped: BTreeSet<(Kind, &str)> = BTreeSet::new();
        for rejection in rejections {
            let Some(kind) = Kind::of_word(rejection.kind) else { continue };
            let Some(slot) = self.slot(kind, &rejection.name) else { continue };
            let version = slot.chosen().map(|offer| offer.version.clone()).unwrap_or_default();
            if stepped.contains(&(kind, &*rejection.name)) || slot.lower() {
                slot.refuse(&version, rejection);
                stepped.insert((kind, &rejection.name));
            }
        }
        self.hold_back();
        !stepped.is_empty()
    }

    /// By cluster, the endpoints that an update brought, where they are all that is new about everything: nothing is gone,
    /// nothing waits, and nothing is refused. None: it takes a trial.
    pub(crate) fn endpoints_alone(&self, update: &Update) -> Option<Vec<(&str, &ClusterLoadAssignment)>> {
        let few = update.resources.len() <= MOST_ALONE && update.removed.is_empty() && !update.complete;
        if update.kind != Kind::Endpoints || !few || !self.was_calm {
            return None;
        }
        let slots = self.slots.get(&Kind::Endpoints)?;
        let mut changed = Vec::new();
        for one in &update.resources {
            let name = one.name.as_ref()?;
            let Content::Endpoints(content) = &slots.get(name)?.offered.as_ref()?.content else { return None };
            let uses = |slot: &Slot| slot.in_force.as_ref().is_some_and(|offer| offer.needs.endpoints.contains(name));
            let before = changed.len();
            changed.extend(self.of(Kind::Cluster).filter(|(_, slot)| uses(slot)).map(|(name, _)| (&**name, content)));
            if changed.len() == before {
                return None;
            }
        }
        Some(changed)
    }

    /// What [`Shelf::endpoints_alone`] found is in force: these endpoints.
    pub(crate) fn commit_endpoints<'s>(
        &'s mut self,
        update: &'s Update,
    ) -> impl Iterator<Item = &'s ClusterLoadAssignment> {
        for name in update.resources.iter().filter_map(|one| one.name.as_ref()) {
            if let Some(slot) = self.slot(Kind::Endpoints, name) {
                slot.choice = Choice::Offered;
                slot.in_force.clone_from(&slot.offered);
                slot.good.clone_from(&slot.offered);
            }
        }
        self.calm = true;
        let slots = self.slots.get(&Kind::Endpoints);
        update.resources.iter().filter_map(move |one| {
            match &slots?.get(one.name.as_ref()?)?.in_force.as_ref()?.content {
                Content::Endpoints(content) => Some(content),
                _ => None,
            }
        })
    }

    /// The trial is in force. What nobody names any more is forgotten.
    pub(crate) fn commit(&mut self) {
        for slot in self.slots.values_mut().flat_map(BTreeMap::values_mut) {
            slot.in_force = slot.chosen().cloned();
            if slot.in_force.is_some() {
                slot.good.clone_from(&slot.in_force);
            }
            if !slot.waits {
                slot.waited_s = 0;
            }
        }
        let wanted = self.wanted();
        let is_wanted = |kind: &Kind, name: &String| wanted.get(kind).is_some_and(|names| names.contains(name));
        for (kind, slots) in self.slots.iter_mut().filter(|(kind, _)| !kind.is_wildcard()) {
            slots.retain(|name, _| is_wanted(kind, name));
        }
        self.absent.retain(|(kind, name)| is_wanted(kind, name));
        let newest = |slot: &Slot| match (&slot.in_force, &slot.offered) {
            (Some(in_force), Some(offered)) => Arc::ptr_eq(in_force, offered) && slot.refused.is_empty() && !slot.waits,
            _ => false,
        };
        self.calm = self.slots.values().flat_map(BTreeMap::values).all(newest);
    }

    /// The names that listeners and clusters have, those in force and the newest.
    pub(crate) fn wanted(&self) -> Names {
        let mut names: Names =
            [Kind::Endpoints, Kind::Route, Kind::Secret].into_iter().map(|kind| (kind, BTreeSet::new())).collect();
        let users = self.of(Kind::Cluster).chain(self.of(Kind::Listener));
        for offer in users.flat_map(|(_, slot)| slot.offered.iter().chain(&slot.good)) {
            let needs = [
                (Kind::Endpoints, &offer.needs.endpoints),
                (Kind::Route, &offer.needs.routes),
                (Kind::Secret, &offer.needs.secrets),
            ];
            for (kind, of_kind) in needs {
                names.entry(kind).or_default().extend(of_kind.iter().cloned());
            }
        }
        names
    }

    /// What is held: of what was refused, the last good one.
    pub(crate) fn versions(&self) -> Versions {
        let version = |slot: &Slot| {
            let newest = slot.offered.as_ref().filter(|_| slot.refused.is_empty()).or(slot.good.as_ref());
            newest.map(|offer| offer.version.clone())
        };
        let of_kind = |slots: &BTreeMap<String, Slot>| {
            slots.iter().filter_map(|(name, slot)| Some((name.clone(), version(slot)?))).collect()
        };
        self.slots.iter().map(|(kind, slots)| (*kind, of_kind(slots))).collect()
    }

    /// Everything that is refused, with the push that brought it.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&Rejection, &str)> {
        let slots = self.slots.values().flat_map(BTreeMap::values);
        slots.flat_map(|slot| slot.refused.iter().map(|rejection| (rejection, slot.known_as(&slot.refused_version))))
    }

    /// A second has passed. True: something waits for long by now.
    pub(crate) fn second(&mut self) -> bool {
        let waiting = self.slots.values_mut().flat_map(BTreeMap::values_mut).filter(|slot| slot.waits);
        waiting.fold(false, |any, slot| {
            slot.waited_s += 1;
            any | (slot.waited_s == LONG_S)
        })
    }

    /// What waits for long, with its push: nobody refuses it, but people should know why it is not in force.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Rejection, &str)> {
        let slots =
            [Kind::Cluster, Kind::Listener].into_iter().flat_map(|kind| self.of(kind).map(move |slot| (kind, slot)));
        let long = slots.filter(|(_, (_, slot))| slot.waits && slot.waited_s >= LONG_S);
        long.filter_map(|(kind, (name, slot))| {
            let offer = slot.offered.as_ref()?;
            let missing: Vec<String> = self.missing(slot, offer).collect();
            let reason = format!("waits for {}, which is not there yet", missing.join(", "));
            Some((super::xds::rejection(kind, name, &reason), slot.known_as(&offer.version)))
        })
    }

    /// Of these resources, why they are refused.
    pub(crate) fn refused_of<'a>(&'a self, update: &'a Update) -> impl Iterator<Item = &'a Rejection> {
        let slots = self.slots.get(&update.kind);
        let came = |name: &str| {
            update.resources.iter().any(|one| match &one.name {
                Some(own) => own == name,
                None => true,
            })
        };
        // Few are refused, if any; ten thousand may have come.
        let refused = slots.into_iter().flatten().filter(|(_, slot)| !slot.refused.is_empty());
        refused.filter(move |(name, _)| came(name)).flat_map(|(_, slot)| &slot.refused)
    }

    /// Something that was refused may be good by now: an address may be free, a certificate valid.
    pub(crate) fn may_improve(&self) -> bool {
        self.slots.values().flat_map(BTreeMap::values).any(|slot| slot.offered.is_some() && !slot.refused.is_empty())
    }

    /// Fields that were not understood, of what is in force.
    pub(crate) fn ignored(&self) -> impl Iterator<Item = &str> {
        self.in_force().flat_map(|(_, offer)| offer.ignored.iter().map(String::as_str))
    }

    /// The version of what is in force by this name.
    pub(crate) fn version_in_force(&self, kind: Kind, name: &str) -> Option<&str> {
        self.slots.get(&kind)?.get(name)?.in_force.as_ref().map(|offer| offer.version.as_str())
    }

    /// Whatever is on its way has come: every listener is in force, refused or known to wait, and some are in force unless there
    /// are none.
    pub(crate) fn is_settled(&self) -> bool {
        let has_endpoints = |offer: &Arc<Offer>| {
            offer.needs.endpoints.iter().all(|name| {
                self.slots.get(&Kind::Endpoints).is_some_and(|slots| slots.contains_key(name))
                    || self.absent.contains(&(Kind::Endpoints, name.clone()))
            })
        };
        let (mut listeners, mut in_force) = (0, 0);
        for (_, slot) in self.of(Kind::Listener) {
            listeners += 1;
            in_force += u32::from(slot.in_force.is_some());
            if slot.waits && slot.waited_s < LONG_S {
                return false;
            }
        }
        let clusters = self.of(Kind::Cluster).filter_map(|(_, slot)| slot.in_force.as_ref());
        self.heard.contains(&Kind::Listener)
            && self.heard.contains(&Kind::Cluster)
            && clusters.into_iter().all(has_endpoints)
            && (listeners == 0 || in_force > 0)
    }

    /// What is in force, as a file.
    pub(crate) fn generation(&self, version: &str, identity: &str) -> Vec<u8> {
        generation::write(version, identity, self.in_force())
    }

    fn in_force(&self) -> impl Iterator<Item = (Kind, &Offer)> {
        self.slots
            .iter()
            .flat_map(|(kind, slots)| slots.values().filter_map(|slot| Some((*kind, &**slot.in_force.as_ref()?))))
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (&String, &Slot)> {
        self.slots.get(&kind).into_iter().flatten()
    }

    fn slot(&mut self, kind: Kind, name: &str) -> Option<&mut Slot> {
        self.slots.get_mut(&kind)?.get_mut(name)
    }
}

fn put(resources: &mut Resources, content: &Content) {
    match content {
        Content::Cluster(one) => resources.clusters.push((**one).clone()),
        Content::Endpoints(one) => resources.endpoints.push(one.clone()),
        Content::Listener(one) => resources.listeners.push((**one).clone()),
        Content::Route(one) => resources.routes.push(one.clone()),
        Content::Secret(one) => resources.secrets.push(one.clone()),
    }
}
