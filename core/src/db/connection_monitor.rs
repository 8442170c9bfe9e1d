//! Monitors the connection to a PostgreSQL server: whether it responds, and which pooled connections can still be used.
//!
//! When a call takes long, the server is probed on a new connection. If the probe gets no response, all pending calls
//! fail at once and the pooled connections are retired: the server may have lost power and will never respond, or it
//! was demoted and no longer accepts writes on existing connections.

use super::{
    health::{WriteFault, WriteHealth},
    pooler::Pooling,
    transient::{broken_connection, is_answer},
};
use sea_orm::{
    DbErr, RuntimeErr,
    sqlx::{self, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions},
};
use std::{
    error::Error,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A call that takes longer than this triggers a probe of the server.
const SLOW_CALL_THRESHOLD: Duration = Duration::from_millis(300);

/// Timeout of a probe, long enough for a remote server.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(4);

/// The interval between two probes.
const TRIAL_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout of the liveness check of a pooled connection.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that was idle for longer is checked before it is used. Errors on a busy one show by themselves.
const MAX_UNCHECKED_IDLE: Duration = Duration::from_secs(5);

/// For this long after a call was abandoned, every connection that is returned to the pool is checked: one of them may
/// be in the middle of that call.
const RECHECK_PERIOD: Duration = Duration::from_secs(10);

/// Needs a transaction id, which a standby does not assign, and fails where transactions are read-only.
const WRITE: &str = "BEGIN; SELECT txid_current(); \
                     SELECT 1 / (current_setting('transaction_read_only') = 'off')::int; COMMIT";

#[derive(Debug)]
pub(super) struct ConnectionMonitor {
    options: PgConnectOptions,
    pooling: Pooling,
    began: Instant,
    /// Connections opened before this are closed. In milliseconds since `began`, like the following fields.
    retired_at: AtomicU64,
    abandoned_at: AtomicU64,
    answered_at: AtomicU64,
    is_tried: AtomicBool,
    /// Why the server is considered unreachable.
    outage: watch::Sender<Option<String>>,
    pub(super) health: WriteHealth,
}

/// Records that a call was abandoned, unless it completed.
struct AbandonedCallGuard<'a>(Option<&'a ConnectionMonitor>);

impl Drop for AbandonedCallGuard<'_> {
    fn drop(&mut self) {
        if let Some(monitor) = self.0 {
            monitor.abandoned_at.store(monitor.now(), Ordering::Release);
        }
    }
}

impl ConnectionMonitor {
    pub(super) fn new(options: PgConnectOptions, pooling: Pooling) -> Arc<Self> {
        Arc::new(Self {
            options,
            pooling,
            began: Instant::now(),
            retired_at: AtomicU64::new(0),
            abandoned_at: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            is_tried: AtomicBool::new(false),
            outage: watch::Sender::default(),
            health: WriteHealth::default(),
        })
    }

    /// Starts at 1, since 0 means never.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX) + 1
    }

    /// Runs a call with a timeout, and fails it early when the server turns out to be unreachable.
    pub(super) async fn call<T, E>(
        self: &Arc<Self>,
        limit: Duration,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        E: From<DbErr> + Error + 'static,
    {
        if let Some(outage) = &*self.outage.borrow() {
            return Err(unreachable(outage).into());
        }
        let mut call = pin!(call);
        // Dropped before `call`, which returns its connection to the pool when it is dropped.
        let mut given_up = AbandonedCallGuard(Some(self));
        let outcome = tokio::select! {
            biased;
            outcome = &mut call => outcome,
            () = tokio::time::sleep(SLOW_CALL_THRESHOLD) => {
                self.suspect();
                let mut outage = self.outage.subscribe();
                tokio::select! {
                    biased;
                    outcome = &mut call => outcome,
                    outage = outage.wait_for(Option::is_some) => {
                        let outage = outage.ok().and_then(|outage| outage.clone());
                        return Err(unreachable(&outage.unwrap_or_default()).into());
                    }
                    () = tokio::time::sleep(limit) => {
                        self.retire();
                        return Err(too_slow(limit).into());
                    }
                }
            }
        };
        given_up.0 = None;
        match &outcome {
            Ok(_) => self.answered_at.store(self.now(), Ordering::Release),
            Err(error) if broken_connection(error).is_some() => {
                self.retire();
                self.suspect();
            }
            Err(_) => {}
        }
        outcome
    }

    /// Retires every connection that is open now; it is closed once it is idle.
    pub(super) fn retire(&self) {
        self.retired_at.store(self.now(), Ordering::Release);
    }

    /// Whether a connection of this age was open when connections were last retired.
    fn is_retired(&self, age: Duration) -> bool {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let retired_at = self.retired_at.load(Ordering::Acquire);
        retired_at > 0 && self.now().saturating_sub(age) <= retired_at
    }

    /// Called before a connection is used.
    pub(super) async fn may_be_used(
        &self,
        connection: &mut PgConnection,
        age: Duration,
        idle_for: Duration,
    ) -> Result<bool, sqlx::Error> {
        if self.is_retired(age) || connection.is_in_transaction() {
            return Ok(false);
        }
        if idle_for > MAX_UNCHECKED_IDLE {
            self.ping(connection).await?;
        }
        Ok(true)
    }

    /// Called after a connection was used.
    pub(super) async fn may_be_kept(
        &self,
        connection: &mut PgConnection,
        age: Duration,
    ) -> Result<bool, sqlx::Error> {
        if self.is_retired(age) || connection.is_in_transaction() {
            return Ok(false);
        }
        let abandoned_at = self.abandoned_at.load(Ordering::Acquire);
        let since = Duration::from_millis(self.now().saturating_sub(abandoned_at));
        if abandoned_at > 0 && since < RECHECK_PERIOD {
            self.ping(connection).await?;
        }
        Ok(true)
    }

    async fn ping(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        match tokio::time::timeout(PING_TIMEOUT, connection.ping()).await {
            Ok(answered) => answered,
            Err(_) => {
                self.retire();
                Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Reports that a write failed; the server is probed until it accepts writes.
    pub(super) fn fail(self: &Arc<Self>, error: &DbErr) {
        self.health.fail(error);
        self.retire();
        self.suspect();
    }

    /// Probes the server until it responds and accepts writes.
    fn suspect(self: &Arc<Self>) {
        if self.is_tried.swap(true, Ordering::AcqRel) {
            return;
        }
        let monitor = Arc::clone(self);
        tokio::spawn(async move {
            let mut log = OutageLog::default();
            loop {
                let outage = monitor.try_out().await.err();
                if outage.is_some() {
                    monitor.retire();
                }
                log.record(outage.as_deref(), monitor.health.fault().as_ref());
                monitor.outage.send_replace(outage);
                tokio::time::sleep(TRIAL_INTERVAL).await;
                if monitor.is_well() {
                    break;
                }
            }
            monitor.is_tried.store(false, Ordering::Release);
            // A failure reported in the meantime found the probe already running.
            if !monitor.is_well() {
                monitor.suspect();
            }
        });
    }

    /// Whether calls fail because the server does not respond.
    pub(super) fn is_unreachable(&self) -> bool {
        self.outage.borrow().is_some()
    }

    /// Whether no fault is known.
    fn is_well(&self) -> bool {
        self.outage.borrow().is_none() && !self.health.is_faulty()
    }

    /// Checks whether the server accepts a new connection and, if writes have failed, whether it accepts writes again.
    async fn try_out(&self) -> Result<(), String> {
        let began = self.now();
        let connecting = tokio::time::timeout(TRIAL_TIMEOUT, self.options.connect()).await;
        let mut connection = match connecting {
            Ok(Ok(connection)) => connection,
            // Too many connections, or a wrong password: the server is up, and calls get their own errors.
            Ok(Err(error)) if is_answer(&error) => return Ok(()),
            Ok(Err(error)) => return Err(error.to_string()),
            // Other calls were answered meanwhile, so the server is busy, not down.
            Err(_) if self.answered_at.load(Ordering::Acquire) > began => return Ok(()),
            Err(_) => return Err(format!("no answer within {TRIAL_TIMEOUT:?}")),
        };
        // A pooler accepts connections while the server behind it does not respond.
        if self.pooling != Pooling::Direct {
            match tokio::time::timeout(TRIAL_TIMEOUT, connection.execute("SELECT 1")).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("no answer within {TRIAL_TIMEOUT:?}")),
            }
        }
        if self.health.is_faulty() {
            let written = tokio::time::timeout(TRIAL_TIMEOUT, connection.execute(WRITE)).await;
            if let Ok(Ok(_)) = written {
                self.health.succeed();
            }
        }
        let _ = tokio::time::timeout(PING_TIMEOUT, connection.close()).await;
        Ok(())
    }
}

/// Logs one line when an outage begins, and one when it ends.
#[derive(Debug, Default)]
struct OutageLog(Option<Instant>);

impl OutageLog {
    fn record(&mut self, outage: Option<&str>, fault: Option<&WriteFault>) {
        match (self.0, outage, fault) {
            (None, Some(error), _) => {
                tracing::error!(
                    error,
                    "the database cannot be reached; calls fail until it can"
                );
                self.0 = Some(Instant::now());
            }
            (None, None, Some(fault)) => {
                let error = &fault.cause;
                tracing::error!(
                    error,
                    "the database accepts no writes; its connections are replaced"
                );
                self.0 = Some(Instant::now());
            }
            (Some(since), None, None) => {
                let seconds = since.elapsed().as_secs();
                tracing::info!(seconds, "the database can be used again");
                self.0 = None;
            }
            _ => {}
        }
    }
}

fn unreachable(outage: &str) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!(
        "the database cannot be reached: {outage}"
    )))
}

fn too_slow(limit: Duration) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!(
        "the database took longer than {limit:?}"
    )))
}
