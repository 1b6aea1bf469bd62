//! A dedicated connection that listens.

use std::{future::poll_fn, time::Duration};

use tokio::sync::mpsc;
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
    /// Nothing was heard; the connection was checked and still listens.
    Idle,
}

/// Notifications held between the connection and its reader; the socket waits beyond that.
const BUFFERED: usize = 1024;

/// A connection that listens on some channels, and nothing else.
pub struct ListenConnection {
    client: Client,
    heard: mpsc::Receiver<Result<Notice, DbError>>,
    channels: usize,
    limit: Duration,
}

impl Instance {
    /// Connects and listens.
    ///
    /// # Errors
    /// If the instance can't be reached, or is another one than expected.
    pub async fn listen(&self, channels: &[String]) -> Result<ListenConnection, DbError> {
        let (client, mut connection) = self.connector.open("").await?;
        let (send, heard) = mpsc::channel(BUFFERED);
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
                    None => return,
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
            client,
            heard,
            channels: channels.len(),
            limit: self.connector.statement_timeout.min(Duration::from_secs(5)),
        })
    }
}

impl ListenConnection {
    /// The next notification, or [`Notice::Idle`] after `idle` without one.
    ///
    /// # Errors
    /// If the connection is gone, does not answer, or does not listen any more.
    pub async fn next(&mut self, idle: Duration) -> Result<Notice, DbError> {
        let gone = || DbError::new(DbErrorKind::Lost, "the listening connection was closed");
        match tokio::time::timeout(idle, self.heard.recv()).await {
            Ok(Some(notice)) => notice,
            Ok(None) => Err(gone()),
            Err(_) => {
                self.check().await?;
                Ok(Notice::Idle)
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
