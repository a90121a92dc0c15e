//! `edges`: who talks to whom.

use crate::Common;
use crate::daemon::{is_missing, refusal};
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{Edge, EdgesAnswer, EdgesRequest};
use std::collections::BTreeMap;
use tokio::task::JoinSet;

pub(super) async fn run(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let mut others = JoinSet::new();
    for mut other in daemon.others().await? {
        others.spawn(
            async move { other.operator().edges(EdgesRequest {}).await.map_err(|status| (other.address, status)) },
        );
    }
    let first = daemon.operator().edges(EdgesRequest {}).await.map_err(refusal)?.into_inner();
    let mut all = vec![first];
    for answer in others.join_all().await {
        match answer {
            Ok(answer) => all.push(answer.into_inner()),
            Err((address, status)) => is_missing(&address, &refusal(status)),
        }
    }
    show::answer(common.output, &together(all), people)?;
    Ok(Exit::Done)
}

/// What several daemons counted.
fn together(all: Vec<EdgesAnswer>) -> EdgesAnswer {
    let mut edges: BTreeMap<(String, String, String), Edge> = BTreeMap::new();
    for edge in all.into_iter().flat_map(|answer| answer.edges) {
        let key = (edge.source.clone(), edge.group.clone(), edge.service.clone());
        let to = edges.entry(key).or_insert_with(|| Edge { allowed: 0, denied: 0, ..edge.clone() });
        to.allowed = to.allowed.saturating_add(edge.allowed);
        to.denied = to.denied.saturating_add(edge.denied);
    }
    EdgesAnswer { edges: edges.into_values().collect() }
}

fn people(edges: &EdgesAnswer) -> String {
    let rows = edges.edges.iter().map(|edge| {
        let source = if edge.source.is_empty() { "(nobody proven)".to_owned() } else { edge.source.clone() };
        vec![source, edge.group.clone(), edge.service.clone(), edge.allowed.to_string(), edge.denied.to_string()]
    });
    let none = "no request was counted by identity yet; proxies do so for a minute from now on, ask again";
    show::table(&["from", "group", "service", "allowed", "denied"], rows.collect(), none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pb::Edge;

    #[test]
    fn an_edge_names_both_ends_and_what_was_denied() {
        let edge =
            Edge { group: "cart".to_owned(), service: "app".to_owned(), allowed: 12, denied: 3, ..Edge::default() };
        let shown = people(&EdgesAnswer { edges: vec![edge] });
        assert_eq!(shown.lines().nth(1), Some("(nobody proven)  cart   app      12       3"));
    }

    #[test]
    fn what_several_daemons_counted_is_added_up() {
        let edge = |source: &str, allowed| Edge { source: source.to_owned(), allowed, denied: 1, ..Edge::default() };
        let answers = [vec![edge("b", 3), edge("a", 1)], vec![edge("b", 4)], vec![]];
        let all = together(answers.into_iter().map(|edges| EdgesAnswer { edges }).collect());
        assert_eq!(all.edges, [edge("a", 1), Edge { denied: 2, ..edge("b", 7) }]);
    }
}
