//! Another root, without a restart or a failed request. Each step waits for what the next one needs:
//!
//! ```text
//!   steady ─► trusting ──────────► issuing ──────────► serving ──────────────────► steady
//!             both roots are       leaves of others    the daemon's own leaf       the old root is
//!             trusted              are the new root's  is the new root's           gone
//!        when:           everybody got the new root                 nobody works with a leaf of the old one
//! ```
//!
//! Everybody: proxies and operators who may come back, connected or not.

use super::roots::{KEY, Roots, new_root};
use super::{Authority, Certificate, Proxy, Refusal};
use crate::store::Change;
use serde::{Deserialize, Serialize};

/// How far a change of roots is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// One root.
    Steady,
    /// A new root is trusted beside the old one.
    Trusting,
    /// Leaves come from the new root.
    Issuing,
    /// The daemon's own leaf does too.
    Serving,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Steady => "one root is trusted",
            Stage::Trusting => "a new root is trusted beside the old one",
            Stage::Issuing => "certificates are issued from the new root",
            Stage::Serving => "the daemon's own certificate is of the new root",
        })
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is done; this is where the change is now.
    Done(Stage),
    /// It waits for these: ids of proxies.
    Waits {
        /// Proxies.
        proxies: Vec<String>,
        /// Operators.
        operators: Vec<String>,
    },
}

impl Authority {
    /// How far a change of roots is.
    pub fn stage(&self) -> Stage {
        self.held().roots().stage
    }

    /// The next step of a change of roots, or who it waits for. `force` waits for nobody: who is left behind must join
    /// again.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn rotate(&self, force: bool, now_ms: u64) -> Result<Step, Refusal> {
        self.refresh(now_ms).await?;
        let held = self.held();
        let roots = held.roots().clone();
        let newest = roots.newest().id.clone();
        let next = match roots.stage {
            Stage::Steady => {
                let root = new_root(&self.seal, self.brought.as_ref(), now_ms)?;
                if root.id == newest {
                    let why = "`root` of the daemon's file names the root that is in use; put the new one there first";
                    return Err(Refusal::NotYet(why.to_owned()));
                }
                let list = roots.list.into_iter().chain([root]).collect();
                Roots { stage: Stage::Trusting, list }
            }
            Stage::Trusting | Stage::Serving if !force => {
                let lacks: fn(&Certificate, &str) -> bool = match roots.stage {
                    Stage::Trusting => |one, newest| !one.bundle.iter().any(|root| root == newest),
                    _ => |one, newest| one.root != newest,
                };
                let waits = self.lacking(|one| lacks(one, &newest), now_ms).await?;
                if let Some(waits) = waits {
                    return Ok(waits);
                }
                after(roots)
            }
            _ => after(roots),
        };
        let stage = next.stage;
        self.store.commit(Change::new().expect(KEY, Some(held.entry.revision)).put(KEY, &next)).await?;
        self.refresh(now_ms).await?;
        Ok(Step::Done(stage))
    }

    /// A proxy should renew now: its certificate is not from the root that issues, or other roots came with it.
    pub fn wants_renewal(&self, proxy: &Proxy) -> bool {
        proxy.in_use().is_some_and(|certificate| !self.is_of_today(certificate))
    }

    /// Everybody who may come back with a certificate that lacks something; none if nobody does.
    async fn lacking(&self, lacks: impl Fn(&Certificate) -> bool, now_ms: u64) -> Result<Option<Step>, Refusal> {
        let proxies = self.proxies().await?.into_iter();
        let proxies = proxies.filter(|proxy| proxy.may_return(now_ms) && proxy.in_use().is_some_and(&lacks));
        let proxies: Vec<_> = proxies.map(|proxy| proxy.id).collect();
        let operators = self.operators().await?.into_iter();
        let operators =
            operators.filter(|operator| operator.in_use().is_some_and(|one| one.not_after_ms > now_ms && lacks(one)));
        let operators: Vec<_> = operators.map(|operator| operator.name).collect();
        let nobody = proxies.is_empty() && operators.is_empty();
        Ok((!nobody).then_some(Step::Waits { proxies, operators }))
    }
}

/// The roots of the next stage.
fn after(roots: Roots) -> Roots {
    let Roots { stage, mut list } = roots;
    let stage = match stage {
        Stage::Steady | Stage::Trusting => Stage::Issuing,
        Stage::Issuing => Stage::Serving,
        Stage::Serving => {
            list.drain(..list.len() - 1);
            Stage::Steady
        }
    };
    Roots { stage, list }
}
