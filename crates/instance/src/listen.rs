//! A dedicated connection that listens.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle};
use tokio_postgres::{AsyncMessage, Client};

use crate::{DbError, DbErrorKind, Instance, sql::quote_ident};

/// Something heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A notification.
    Notification {
        /// Its channel.
        channel: String,
        /// Its payload.
        payload: String,
        /// The backend that sent it.
        pid: i32,
    },
    /// The connection was checked and still listens. What was committed before this time has been
    /// heard.
    Checked(Instant),
}

/// Notifications held between the connection and its reader; the socket waits beyond that.
const BUFFERED: usize = 1024;

/// A connection that listens on some channels, and nothing else.
pub struct ListenConnection {
    client: Arc<Client>,
    heard: mpsc::Receiver<Result<Notice, DbError>>,
    tell: mpsc::Sender<Result<Notice, DbError>>,
    channels: usize,
    limit: Duration,
    checks: Option<AbortHandle>,
}

impl Instance {
    /// Connects and listens.
    ///
    /// # Errors
    /// If the instance can't be reached, or is another one than expected.
    pub async fn listen(&self, channels: &[String]) -> Result<ListenConnection, DbError> {
        let (client, mut connection) = self.connector.open("").await?;
        let (tell, heard) = mpsc::channel(BUFFERED);
        let send = tell.clone();
        tokio::spawn(async move {
            // The connection as a future would drop notifications: they come as messages only.
            loop {
                let notice = match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notification(heard))) => Ok(Notice::Notification {
                        channel: heard.channel().to_owned(),
                        payload: heard.payload().to_owned(),
                        pid: heard.process_id(),
                    }),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(closed()),
                };
                let over = notice.is_err();
                if send.send(notice).await.is_err() || over {
                    return;
                }
            }
        });
        let listen: String = channels
            .iter()
            .map(|channel| format!("listen {};", quote_ident(channel)))
            .collect();
        client.batch_execute(&listen).await?;
        // What another instance notifies must not come under this one's name.
        self.check_server(&client).await?;
        Ok(ListenConnection {
            client: Arc::new(client),
            heard,
            tell,
            channels: channels.len(),
            limit: self.connector.statement_timeout.min(Duration::from_secs(5)),
            checks: None,
        })
    }
}

fn closed() -> DbError {
    DbError::new(DbErrorKind::Lost, "the listening connection was closed")
}

impl ListenConnection {
    /// The next notification, or [`Notice::Checked`], which comes every so often, between
    /// notifications too.
    ///
    /// # Errors
    /// If the connection is gone, does not answer, or does not listen any more.
    pub async fn next(&mut self, check_every: Duration) -> Result<Notice, DbError> {
        self.checks.get_or_insert_with(|| {
            let checks = Checks {
                client: self.client.clone(),
                tell: self.tell.clone(),
                channels: self.channels,
                limit: self.limit,
            };
            tokio::spawn(checks.run(check_every)).abort_handle()
        });
        self.heard.recv().await.unwrap_or_else(|| Err(closed()))
    }
}

impl Drop for ListenConnection {
    fn drop(&mut self) {
        if let Some(checks) = &self.checks {
            checks.abort();
        }
    }
}

/// Asks the connection every so often whether it still listens.
///
/// The answer goes the way of the notifications, behind those that came before it: PostgreSQL hands
/// out what it was notified of before it says that it is ready again, and whoever commits has
/// notified before he is told so.
struct Checks {
    client: Arc<Client>,
    tell: mpsc::Sender<Result<Notice, DbError>>,
    channels: usize,
    limit: Duration,
}

impl Checks {
    async fn run(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let started = Instant::now();
            let checked = self.check().await.map(|()| Notice::Checked(started));
            let over = checked.is_err();
            if self.tell.send(checked).await.is_err() || over {
                return;
            }
        }
    }

    async fn check(&self) -> Result<(), DbError> {
        let asked = self
            .client
            .query_one("select count(*) from pg_listening_channels()", &[]);
        let row = tokio::time::timeout(self.limit, asked)
            .await
            .map_err(|_| {
                DbError::new(
                    DbErrorKind::Lost,
                    format!(
                        "the listening connection has not answered within {:?}",
                        self.limit
                    ),
                )
            })??;
        if row.get::<_, i64>(0) < self.channels as i64 {
            return Err(DbError::new(
                DbErrorKind::Lost,
                "the connection does not listen any more: is there a transaction pooler between?",
            ));
        }
        Ok(())
    }
}
