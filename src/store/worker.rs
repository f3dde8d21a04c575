//! The two threads that own the connections, and the handle that sends them work.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{StoreError, schema};

/// Work waiting for a thread; callers wait when it is full.
const QUEUE: usize = 128;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

enum Job {
    Work(Work),
    /// Close the connection and tell when done.
    Stop(oneshot::Sender<()>),
}

/// The handle to the database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    writer: mpsc::Sender<Job>,
    reader: mpsc::Sender<Job>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens (or makes) the database, brings it to this program's schema and starts the threads.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or is of a newer manifold.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let mut write = Connection::open(path).map_err(open)?;
        configure(&write).map_err(open)?;
        // NORMAL may lose the last commits at a power cut; what was acknowledged must stay.
        write
            .pragma_update(None, "synchronous", "FULL")
            .map_err(open)?;
        schema::migrate(&mut write)?;
        let read = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(open)?;
        configure_reader(&read).map_err(open)?;
        let inner = Inner {
            writer: start("store-writer", write),
            reader: start("store-reader", read),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Closes both connections after the work already queued; later calls fail with
    /// [`StoreError::Closed`].
    pub async fn close(&self) {
        for thread in [&self.inner.reader, &self.inner.writer] {
            let (done, wait) = oneshot::channel();
            if thread.send(Job::Stop(done)).await.is_ok() {
                // An error means the thread is gone, which is what was asked for.
                wait.await.ok();
            }
        }
    }

    /// Runs `change` in a transaction on the writer thread; commits when it returns `Ok`.
    /// It runs to its end even if the caller goes away.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        act: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self::send(&self.inner.writer, move |connection| {
            // IMMEDIATE: take the write lock before the first read, so that nothing read here
            // can be stale at commit.
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(StoreError::sql(act))?;
            let value = change(&transaction)?;
            transaction.commit().map_err(StoreError::sql(act))?;
            Ok(value)
        })
        .await
    }

    /// Runs `query` on the reader thread, on one consistent state.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        act: &'static str,
        query: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self::send(&self.inner.reader, move |connection| {
            let transaction = connection.transaction().map_err(StoreError::sql(act))?;
            query(&transaction)
        })
        .await
    }
}

async fn send<T: Send + 'static>(
    thread: &mpsc::Sender<Job>,
    work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, wait) = oneshot::channel();
    let job = Job::Work(Box::new(move |connection| {
        // The caller may have gone away meanwhile; the work is done all the same.
        reply.send(work(connection)).ok();
    }));
    thread.send(job).await.map_err(|_| StoreError::Closed)?;
    wait.await.map_err(|_| StoreError::Closed)?
}

fn start(name: &str, mut connection: Connection) -> mpsc::Sender<Job> {
    let (sender, mut jobs) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                match job {
                    Job::Work(work) => work(&mut connection),
                    Job::Stop(done) => {
                        if let Err((_, error)) = connection.close() {
                            tracing::warn!(%error, "cannot close the database");
                        }
                        done.send(()).ok();
                        return;
                    }
                }
            }
        })
        .expect("a thread can be started at start-up");
    sender
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    configure_reader(connection)?;
    connection.pragma_update(None, "foreign_keys", "ON")
}

fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(64);
    // Only an operator's own sqlite3 shell can hold the lock that long.
    connection.busy_timeout(Duration::from_secs(5))
}
