//! Groups from outside: made, listed, replayed; their dead letters; and pulling without a stream.

use std::collections::HashSet;
use std::time::Duration;

use pgbraid_proto::v1::{self, position::At, settle_result::Outcome};
use tokio::time::{Instant, sleep, timeout_at};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::ClientError;
use crate::subscriber::Start;

/// Settlements of one request, at most.
const TOGETHER: usize = 10_000;

/// The groups of a cluster. Made by [`Client::groups`].
#[derive(Debug, Clone)]
pub struct Groups {
    client: Client,
}

impl Client {
    /// Consumer groups, apart from being a member of one: see
    /// [`GroupConsumer`](crate::GroupConsumer) for that.
    pub fn groups(&self) -> Groups {
        Groups {
            client: self.clone(),
        }
    }
}

impl Groups {
    /// Creates a group, or replaces its settings. `start` is the position of a new one.
    /// `expected_version` is what the editor has seen, 0 for a group that must be new; `None`
    /// replaces whatever there is.
    ///
    /// # Errors
    /// A setting that cannot be, ABORTED for another version, or the home instance is down.
    pub async fn put(
        &self,
        group: v1::Group,
        expected_version: Option<i64>,
        start: &Start,
    ) -> Result<v1::PutGroupResponse, ClientError> {
        let request = v1::PutGroupRequest {
            group: Some(group),
            expected_version,
            start: Some(position(start)),
        };
        let answer = self.client.alerts().put_group(request).await;
        Ok(answer?.into_inner())
    }

    /// All groups, or one, with how they stand on each instance.
    ///
    /// # Errors
    /// There is no such group, or the router is not there.
    pub async fn list(&self, name: Option<&str>) -> Result<v1::ListGroupsResponse, ClientError> {
        let request = v1::ListGroupsRequest {
            name: name.unwrap_or_default().to_owned(),
        };
        let answer = self.client.alerts().list_groups(request).await;
        let mut answer = answer?.into_inner();
        // To the router an empty name is no name.
        if let Some(name) = name {
            answer
                .groups
                .retain(|state| state.group.as_ref().is_some_and(|group| group.name == name));
        }
        Ok(answer)
    }

    /// Removes a group with its dead letters; returns the instances that were not reached, which
    /// hear of it when they are back.
    ///
    /// # Errors
    /// There is no such group, ABORTED for another version, or the home instance is down.
    pub async fn remove(
        &self,
        name: &str,
        expected_version: Option<i64>,
    ) -> Result<Vec<String>, ClientError> {
        let request = v1::RemoveGroupRequest {
            name: name.to_owned(),
            expected_version,
        };
        let answer = self.client.alerts().remove_group(request).await;
        Ok(answer?.into_inner().pending)
    }

    /// Sets the position of a group, on some instances or (empty) on all.
    ///
    /// # Errors
    /// Nothing was done, or not on every instance: the message says which; say it again.
    pub async fn replay(
        &self,
        group: &str,
        from: &Start,
        instances: &[String],
    ) -> Result<(), ClientError> {
        let request = v1::ReplayGroupRequest {
            group: group.to_owned(),
            from: Some(position(from)),
            instances: instances.to_vec(),
        };
        self.client.alerts().replay_group(request).await?;
        Ok(())
    }

    /// A page of dead letters, by instance and seq: those after this id, or (empty) the first.
    ///
    /// # Errors
    /// There is no such group, or the router is not there.
    pub async fn dead_letters(
        &self,
        group: &str,
        after: &str,
        limit: u32,
    ) -> Result<v1::ListDeadLettersResponse, ClientError> {
        let request = v1::ListDeadLettersRequest {
            group: group.to_owned(),
            limit,
            after: after.to_owned(),
        };
        let answer = self.client.alerts().list_dead_letters(request).await;
        Ok(answer?.into_inner())
    }

    /// Delivers dead letters again as if for the first time; without ids, all of the group.
    ///
    /// # Errors
    /// There is no such group, or something is no id.
    pub async fn requeue(
        &self,
        group: &str,
        ids: Option<Vec<String>>,
    ) -> Result<v1::DeadLettersResponse, ClientError> {
        let request = which(group, ids);
        let answer = self.client.alerts().requeue_dead_letters(request).await;
        Ok(answer?.into_inner())
    }

    /// Drops dead letters for good; without ids, all of the group.
    ///
    /// # Errors
    /// As [`Self::requeue`].
    pub async fn drop_dead(
        &self,
        group: &str,
        ids: Option<Vec<String>>,
    ) -> Result<v1::DeadLettersResponse, ClientError> {
        let request = which(group, ids);
        let answer = self.client.alerts().drop_dead_letters(request).await;
        Ok(answer?.into_inner())
    }

    /// Takes up to `max` alerts (1 to 1000), waiting for the first as long as `wait` (at most 60 s).
    ///
    /// # Errors
    /// There is no such group, or the router is not there; the next call goes to another one.
    pub async fn pull(
        &self,
        group: &str,
        member: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<v1::Delivery>, ClientError> {
        let request = v1::PullRequest {
            group: group.to_owned(),
            member: member.to_owned(),
            max,
            wait: wait.try_into().ok(),
        };
        let place = self.client.place();
        match self.client.alerts().pull(request).await {
            Ok(answer) => Ok(answer.into_inner().deliveries),
            Err(status) => {
                let error = ClientError::from(status);
                if error.is_retriable() {
                    self.client.lost(place);
                }
                Err(error)
            }
        }
    }

    /// Settles deliveries of [`Self::pull`] or of a stream, through any router. What an instance
    /// did not answer, and all when no router answers, is said again within `limit`. The results
    /// are in no particular order; what is left over at the end is UNAVAILABLE.
    ///
    /// # Errors
    /// There is no such group, a settlement cannot be, or no router answered at all.
    pub async fn settle(
        &self,
        group: &str,
        settlements: Vec<v1::Settlement>,
        limit: Duration,
    ) -> Result<Vec<v1::SettleResult>, ClientError> {
        let by = Instant::now() + limit;
        let backoff = Backoff::default();
        let mut results = Vec::new();
        for settlements in pieces(settlements) {
            let mut left = settlements;
            let (mut failures, mut unavailable) = (0, Vec::new());
            loop {
                let request = v1::SettleRequest {
                    group: group.to_owned(),
                    settlements: left.clone(),
                };
                let place = self.client.place();
                let mut client = self.client.alerts();
                let answer = match timeout_at(by, client.settle(request)).await {
                    Ok(answer) => answer.map_err(ClientError::from),
                    Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time").into()),
                };
                failures += 1;
                let mut wait = backoff.wait(failures);
                match answer {
                    Ok(answer) => {
                        let (again, done): (Vec<_>, Vec<_>) = answer
                            .into_inner()
                            .results
                            .into_iter()
                            .partition(|result| result.outcome() == Outcome::Unavailable);
                        results.extend(done);
                        keep_only(&mut left, &again);
                        unavailable = again;
                    }
                    Err(error) if !error.is_retriable() => return Err(error),
                    Err(error) => {
                        self.client.lost(place);
                        if let ClientError::Api(api) = &error {
                            wait = wait.max(api.retry_delay.unwrap_or_default());
                        }
                        if Instant::now() + wait >= by && unavailable.is_empty() {
                            return Err(error);
                        }
                    }
                }
                if left.is_empty() {
                    break;
                }
                if Instant::now() + wait >= by {
                    results.append(&mut unavailable);
                    break;
                }
                sleep(wait).await;
            }
        }
        Ok(results)
    }
}

fn which(group: &str, ids: Option<Vec<String>>) -> v1::DeadLettersRequest {
    v1::DeadLettersRequest {
        group: group.to_owned(),
        all: ids.is_none(),
        ids: ids.unwrap_or_default(),
    }
}

fn position(start: &Start) -> v1::Position {
    let at = match start {
        Start::Now => At::Now(v1::Now {}),
        Start::Earliest => At::Earliest(v1::Earliest {}),
        Start::Time(time) => At::Time((*time).into()),
        Start::Token(token) => At::Token(token.clone()),
    };
    v1::Position { at: Some(at) }
}

/// Requests of no more ids than a router takes.
fn pieces(settlements: Vec<v1::Settlement>) -> Vec<Vec<v1::Settlement>> {
    let (mut pieces, mut piece, mut room) = (Vec::new(), Vec::new(), TOGETHER);
    for settlement in settlements {
        for ids in settlement.ids.chunks(TOGETHER) {
            if ids.len() > room {
                pieces.push(std::mem::take(&mut piece));
                room = TOGETHER;
            }
            room -= ids.len();
            piece.push(v1::Settlement {
                ids: ids.to_vec(),
                how: settlement.how.clone(),
            });
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn keep_only(settlements: &mut Vec<v1::Settlement>, results: &[v1::SettleResult]) {
    let wanted: HashSet<&str> = results.iter().map(|result| result.id.as_str()).collect();
    for settlement in settlements.iter_mut() {
        settlement.ids.retain(|id| wanted.contains(id.as_str()));
    }
    settlements.retain(|settlement| !settlement.ids.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_are_cut() {
        let settlement = |count: usize| v1::Settlement {
            ids: (0..count).map(|id| id.to_string()).collect(),
            how: None,
        };
        let cut = pieces(vec![settlement(3), settlement(2 * TOGETHER), settlement(1)]);
        let sizes: Vec<usize> = cut
            .iter()
            .map(|piece| piece.iter().map(|one| one.ids.len()).sum())
            .collect();
        assert_eq!(sizes, [3, TOGETHER, TOGETHER, 1]);
        assert!(pieces(Vec::new()).is_empty());
    }
}
