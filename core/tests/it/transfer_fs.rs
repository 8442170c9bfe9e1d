use crate::support::{self, MIB, noise, request, staging_config};
use landfall_core::{staging::Staging, transfer::transfer};
use std::{fs, os::unix::fs::MetadataExt};
use tempfile::TempDir;

#[tokio::test]
async fn on_one_file_system_the_file_is_linked() {
    let place = support::fs().await;
    let piece = place.stage(&noise(MIB, 1)).await;
    let key = "uploads/2026/11/a".parse().unwrap();
    transfer(&place.staging, &place.storage, &request(&[piece], &key))
        .await
        .unwrap();
    let stored = fs::metadata(place.folder.path().join("storage/uploads/2026/11/a")).unwrap();
    let staged = fs::metadata(place.staging.local_path(piece.key).unwrap()).unwrap();
    assert_eq!(stored.ino(), staged.ino());
    place.staging.delete(&[piece.key]).await.unwrap();
    assert!(place.stored(&key).await == noise(MIB, 1));
}

#[tokio::test]
async fn from_another_file_system_the_file_is_copied() {
    let place = support::fs().await;
    let other = TempDir::new_in("/dev/shm").unwrap();
    let here = fs::metadata(place.folder.path()).unwrap().dev();
    assert_ne!(
        fs::metadata(other.path()).unwrap().dev(),
        here,
        "/dev/shm must be a tmpfs of its own"
    );
    let staging = Staging::open(&staging_config(other.path()), &place.storage)
        .await
        .unwrap();
    let place = support::Place { staging, ..place };
    let bytes = noise(3 * MIB, 2);
    let piece = place.stage(&bytes).await;
    let key = "uploads/a".parse().unwrap();
    for _ in 0..2 {
        transfer(&place.staging, &place.storage, &request(&[piece], &key))
            .await
            .unwrap();
        assert!(place.stored(&key).await == bytes);
    }
    let temporary = place.folder.path().join("storage/.landfall");
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}

#[tokio::test]
async fn a_removed_folder_of_storage_is_made_again() {
    let place = support::fs().await;
    let pieces = [place.stage(&noise(10, 3)).await];
    let (first, second) = ("uploads/a".parse().unwrap(), "uploads/b".parse().unwrap());
    transfer(&place.staging, &place.storage, &request(&pieces, &first))
        .await
        .unwrap();
    fs::remove_dir_all(place.folder.path().join("storage/uploads")).unwrap();
    let error = transfer(&place.staging, &place.storage, &request(&pieces, &second))
        .await
        .unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    transfer(&place.staging, &place.storage, &request(&pieces, &second))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_transfer_leaves_no_temporary_file() {
    let place = support::fs().await;
    let piece = place.stage(&noise(40 * MIB, 4)).await;
    // Enough to take a while.
    let pieces = [piece; 50];
    let key = "uploads/a".parse().unwrap();
    let request = request(&pieces, &key);
    let temporary = place.folder.path().join("storage/.landfall");
    let count = || fs::read_dir(&temporary).unwrap().count();
    tokio::select! {
        landed = transfer(&place.staging, &place.storage, &request) => panic!("not dropped: {landed:?}"),
        () = support::eventually("it is being copied", || async { count() > 0 }) => {}
    }
    support::eventually("the copy is gone", || async { count() == 0 }).await;
    assert_eq!(place.storage.head(&key).await.unwrap(), None);
}
