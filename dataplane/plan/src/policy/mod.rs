//! Who may do what: lists of rules that are asked one after the other, and the permit that only they give.
//!
//! ```text
//! listener deny ──► listener allow ──► route deny ──► route allow ──► Permit
//!      │ a rule holds    │ no rule holds    │ …            │ …
//!      └─────────────────┴──────────────────┴──────────────┴────────► refused, by that rule
//! ```
//!
//! All conditions of a rule must hold (AND), one rule of a list is enough (OR). An allow list refuses whom none of its
//! rules names. Rules that only try (dry-run) are asked too, and reported, and decide nothing.

mod condition;

pub(crate) use condition::{Asked, Condition, Scratch};

use crate::Plan;
use std::fmt;

/// The verdict of policy that a request may pass. Only this file makes one, so an answer that needs it cannot be given
/// without having asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit(());

/// Which rule: an index into `Plan::rules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub u32);

/// What a rule's hits are counted under. Names, so that counters outlive the plan. Unique within a plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey {
    /// The listener's name.
    pub listener: Box<str>,
    /// The route's name; empty for the listener's own lists.
    pub route: Box<str>,
    /// `deny`, `allow` or `quota`.
    pub list: &'static str,
    /// The rule's name; empty for what an allow list does with those that none of its rules names.
    pub name: Box<str>,
}

impl RuleKey {
    /// What it is called in the log: by what no rule names, too.
    pub fn title(&self) -> &str {
        if self.name.is_empty() { "(nobody)" } else { &self.name }
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.route.is_empty() { "listener" } else { "route" };
        let name = self.title();
        write!(f, "{whose} {} {name}", self.list)
    }
}

/// A list of rules.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) kind: ListKind,
    /// In the order of the configuration.
    pub(crate) rules: Box<[Rule]>,
    /// The list decides. Otherwise its rules only try.
    pub(crate) enforced: bool,
    /// There are rules that try.
    pub(crate) tried: bool,
    /// What refuses whom no rule of an allow list names.
    pub(crate) nobody: RuleId,
}

/// What it means that a rule of a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// The request is refused.
    Deny,
    /// The request passes this list.
    Allow,
}

/// One rule. It is enforced, tried, or, as is usual for one that is enforced, both.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) enforced: bool,
    pub(crate) tried: bool,
    pub(crate) when: Condition,
}

/// What the lists say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// None: refused.
    pub(crate) permit: Option<Permit>,
    /// The rule that decided: that refused, or the last that let pass.
    pub(crate) rule: Option<RuleId>,
    /// The first that would have refused, were it enforced.
    pub(crate) dry_run: Option<RuleId>,
}

/// Which list: an index into the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListId(pub(crate) u32);

/// What the lists say about a request, asked in this order.
#[inline]
pub(crate) fn judge(plan: &Plan, lists: &[ListId], asked: &mut Asked<'_>, scratch: &mut Scratch) -> Verdict {
    let mut verdict = Verdict { permit: None, rule: None, dry_run: None };
    for id in lists {
        let list = &plan.lists[id.0 as usize];
        // The loop that most of policy's time goes to: without a call for each rule.
        let mut enforced = None;
        for rule in &list.rules {
            if rule.enforced && rule.when.holds(list.kind, plan, asked, scratch) {
                enforced = Some(rule);
                break;
            }
        }
        match (list.kind, enforced) {
            (ListKind::Deny, Some(rule)) => return Verdict { rule: Some(rule.id), ..verdict },
            (ListKind::Allow, None) if list.enforced => return Verdict { rule: Some(list.nobody), ..verdict },
            (ListKind::Allow, Some(rule)) => verdict.rule = Some(rule.id),
            _ => {}
        }
        if list.tried && verdict.dry_run.is_none() {
            let holds = |rule: &&Rule| rule.when.holds(list.kind, plan, asked, scratch);
            verdict.dry_run = list.would_refuse(enforced, holds);
        }
    }
    Verdict { permit: Some(Permit(())), ..verdict }
}

impl ListKind {
    /// A condition that is denied is asked as the other kind would.
    pub(crate) fn opposite(self) -> ListKind {
        match self {
            ListKind::Deny => ListKind::Allow,
            ListKind::Allow => ListKind::Deny,
        }
    }

    /// The language's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            ListKind::Deny => "deny",
            ListKind::Allow => "allow",
        }
    }
}

impl List {
    /// What would have refused a request that the list let pass, because `enforced` holds or nothing had to.
    fn would_refuse(&self, enforced: Option<&Rule>, holds: impl FnMut(&&Rule) -> bool) -> Option<RuleId> {
        let mut tried = self.rules.iter().filter(|rule| rule.tried);
        match self.kind {
            // Those that are enforced as well do not hold, otherwise it would be refused.
            ListKind::Deny => tried.filter(|rule| !rule.enforced).find(holds).map(|rule| rule.id),
            ListKind::Allow if enforced.is_some_and(|rule| rule.tried) => None,
            ListKind::Allow => match { tried }.find(holds) {
                Some(_) => None,
                None => Some(self.nobody),
            },
        }
    }
}
