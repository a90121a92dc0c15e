//! `edges`: who talks to whom.

use crate::Common;
use crate::daemon::refusal;
use crate::exit::{Exit, Failure};
use crate::show;
use api::pb::{EdgesAnswer, EdgesRequest};

pub(super) async fn run(common: &Common) -> Result<Exit, Failure> {
    let mut daemon = common.connect().await?;
    let edges = daemon.operator().edges(EdgesRequest {}).await.map_err(refusal)?.into_inner();
    show::answer(common.output, &edges, people)?;
    Ok(Exit::Done)
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
}
