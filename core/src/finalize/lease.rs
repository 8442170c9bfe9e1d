//! Renewing a lease while its work is running.

use crate::{clock::Clock, db::Database};
use entity::{
    FileId,
    file::{Column, Entity, FileStatus},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Renews the lease of a file three times per lease duration until dropped, and reports when it is lost.
#[derive(Debug)]
pub(super) struct LeaseRenewal {
    lost: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl LeaseRenewal {
    pub(super) fn start(
        db: Database,
        clock: Clock,
        id: FileId,
        worker: String,
        lease: Duration,
    ) -> Self {
        let lost = CancellationToken::new();
        let tell = lost.clone();
        let task = tokio::spawn(async move {
            let mut deadline = clock.after(lease);
            loop {
                tokio::time::sleep(lease / 3).await;
                let until = clock.after(lease);
                match renew(&db, id, worker.clone(), until).await {
                    Ok(true) => deadline = until,
                    // Another worker has it.
                    Ok(false) => break,
                    // The work may continue until the lease expires: the commit is fenced, not this.
                    Err(error) if clock.now() < deadline => {
                        tracing::warn!(file.id = %id, %error, "the lease could not be renewed, will retry");
                    }
                    Err(_) => break,
                }
            }
            tell.cancel();
        });
        Self {
            lost,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Returns once the lease is lost.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

async fn renew(
    db: &Database,
    id: FileId,
    worker: String,
    until: entity::Timestamp,
) -> Result<bool, sea_orm::DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            let changed = Entity::update_many()
                .col_expr(Column::LeaseExpiresAt, Expr::value(until))
                .filter(Column::Id.eq(id))
                .filter(Column::Status.eq(FileStatus::Finalizing))
                .filter(Column::LeaseOwner.eq(worker))
                .exec(transaction)
                .await?;
            Ok(changed.rows_affected == 1)
        })
    })
    .await
}
