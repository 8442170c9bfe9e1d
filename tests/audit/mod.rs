//! The audit: every kind of offender really made, found, mended where that can be, and gone afterwards; on both
//! databases, in folders and in a bucket.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod command;
mod leftovers;
mod outbox;
mod overdue;

use crate::support::TestApp;
use entity::FileId;
use landfall_core::{
    app::App,
    audit::{self, AuditOptions, AuditReport, Invariant, NoObserver, Violation},
    finalize::{FinalizeOutcome, Finalizer},
};
use landfall_test_servers::S3Server;

const LOOK: AuditOptions = AuditOptions {
    repair: false,
    deep: false,
    force_orphans: None,
};
const REPAIR: AuditOptions = AuditOptions {
    repair: true,
    deep: false,
    force_orphans: None,
};
const DEEP: AuditOptions = AuditOptions {
    repair: false,
    deep: true,
    force_orphans: None,
};

/// An installation without workers: what the test breaks stays broken until the audit repairs it.
pub struct AuditTarget {
    pub app: TestApp,
    pub s3: Option<S3Server>,
}

/// One on each database over folders, one on each over a bucket.
pub async fn everywhere() -> Vec<AuditTarget> {
    let mut places = Vec::new();
    for postgres in [false, true] {
        for bucket in [false, true] {
            let mut builder = TestApp::builder().workers(&[]);
            if postgres {
                builder = builder.postgres();
            }
            let s3 = match bucket {
                true => Some(S3Server::start().await),
                false => None,
            };
            if let Some(s3) = &s3 {
                builder = builder.s3(s3);
            }
            let app = builder.start().await;
            places.push(AuditTarget { app, s3 });
        }
    }
    places
}

impl AuditTarget {
    pub fn landfall(&self) -> &App {
        &self.app.parts.app
    }

    /// Uploads a file and finalizes it.
    pub async fn store(&self, name: &str, bytes: &str) -> FileId {
        let id = self.stage(name, bytes).await;
        let outcome = Finalizer::new(self.landfall(), "test")
            .finalize(id)
            .await
            .unwrap();
        assert_eq!(outcome, FinalizeOutcome::Stored);
        id
    }

    pub async fn stage(&self, name: &str, bytes: &str) -> FileId {
        let file = self.app.upload(name, bytes.to_owned()).await;
        file["id"].as_str().unwrap().parse().unwrap()
    }

    pub async fn audit(&self, options: AuditOptions) -> AuditReport {
        audit::audit(self.landfall(), options, &NoObserver)
            .await
            .unwrap()
    }

    pub async fn is_clean(&self) {
        let report = self.audit(LOOK).await;
        assert!(report.is_clean(), "{:?}", report.offenders);
        let latest = audit::latest(self.landfall().db.read()).await.unwrap();
        assert_eq!(latest.unwrap().summary.left(), 0);
    }

    /// Audits without repairing, and returns the only problem.
    pub async fn one(&self, invariant: Invariant, id: &str) -> Violation {
        let report = self.audit(LOOK).await;
        let [offender] = &report.offenders[..] else {
            panic!("one offender, not {:?}", report.offenders);
        };
        assert_eq!(
            (offender.invariant, offender.id.as_str()),
            (invariant, id),
            "{offender:?}"
        );
        offender.clone()
    }

    /// Repairs the expected number of problems, and finds none afterwards.
    pub async fn repairs(&self, count: u64) {
        let report = self.audit(REPAIR).await;
        assert!(report.is_clean(), "left: {:?}", report.offenders);
        assert_eq!(report.found.values().sum::<u64>(), count, "{report:?}");
        self.is_clean().await;
    }

    pub async fn row(&self, id: FileId) -> entity::file::Model {
        use sea_orm::EntityTrait;
        let row = entity::file::Entity::find_by_id(id);
        row.one(self.landfall().db.read()).await.unwrap().unwrap()
    }

    pub async fn key(&self, id: FileId) -> landfall_core::storage::StorageKey {
        let key = self.row(id).await.storage_key;
        key.unwrap().parse().unwrap()
    }

    /// Returns the file of an object, for either storage.
    pub async fn path(&self, id: FileId) -> std::path::PathBuf {
        let key = self.key(id).await;
        match &self.s3 {
            Some(s3) => s3
                .root()
                .join(crate::support::installation::BUCKET)
                .join(key.as_str()),
            None => self.landfall().config.storage.path.join(key.as_str()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn healthy_installation_has_no_problems_and_everything_is_checked() {
    for target in everywhere().await {
        for number in 0..3 {
            target
                .store("same.txt", &format!("the bytes of {number}"))
                .await;
        }
        let waiting = target.stage("waits.txt", "patience").await;
        let report = target.audit(DEEP).await;
        assert!(report.is_clean(), "{:?}", report.offenders);
        // Three files, three events, three objects, one staged file.
        assert_eq!(report.checked, 10, "{waiting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn missing_object_is_reported_and_cannot_be_repaired() {
    for target in everywhere().await {
        let id = target.store("lost.txt", "lost").await;
        target.store("kept.txt", "kept").await;
        let key = target.key(id).await;
        target.landfall().storage.delete(&key).await.unwrap();
        target.one(Invariant::I1, &id.to_string()).await;
        let report = target.audit(REPAIR).await;
        assert_eq!(report.left[&Invariant::I1], 1);
        assert!(report.offenders[0].detail.contains("not repaired"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn object_of_another_size_is_found_and_one_of_other_bytes_when_read() {
    for target in everywhere().await {
        let cut = target.store("cut.txt", "to be cut").await;
        std::fs::write(target.path(cut).await, "cut").unwrap();
        let offender = target.one(Invariant::I1, &cut.to_string()).await;
        assert!(offender.detail.contains("3 bytes"), "{offender:?}");
        std::fs::write(target.path(cut).await, "to be cut").unwrap();
        target.is_clean().await;
        std::fs::write(target.path(cut).await, "rotten...").unwrap();
        let report = target.audit(DEEP).await;
        assert_eq!(report.found[&Invariant::I1], 1);
        assert!(report.offenders[0].detail.contains("SHA-256"));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn files_in_progress_are_not_reported() {
    let app = TestApp::builder().postgres().start().await;
    let uploads = async {
        for number in 0..60 {
            app.upload(&format!("{number}.txt"), format!("number {number}"))
                .await;
        }
    };
    let audits = async {
        for _ in 0..6 {
            let report = audit::audit(&app.parts.app, DEEP, &NoObserver).await;
            let report = report.unwrap();
            assert!(report.is_clean(), "{:?}", report.offenders);
        }
    };
    tokio::join!(uploads, audits);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_audit_by_themselves_and_the_latest_result_is_kept() {
    let app = TestApp::builder().set("audit.interval", "1s").start().await;
    let file = app.upload("a.txt", "a").await;
    app.settled(&file["id"]).await;
    let landfall = &app.parts.app;
    landfall_test_servers::wait_until(crate::support::app::SOON, async || {
        let latest = audit::latest(landfall.db.read()).await.unwrap();
        latest
            .filter(|latest| latest.summary.checked >= 3)
            .ok_or("no audit has seen the file")
    })
    .await;
    let latest = audit::latest(landfall.db.read()).await.unwrap().unwrap();
    assert_eq!(latest.summary.left(), 0, "{latest:?}");
    assert!(!latest.summary.repair);
}
