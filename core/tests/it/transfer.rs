use crate::support::{self, body, noise};
use landfall_core::{
    digest::Sha256Digest,
    staging::{Options, StagingKey},
    storage::transfer::{Landed, Landing, Piece, land},
};

#[tokio::test]
async fn a_staged_body_lands_with_its_size_and_digest() {
    let place = support::fs().await;
    let bytes = noise(3_000_000, 1);
    let key = StagingKey::generate();
    place
        .staging
        .write(key, body(bytes.clone(), 70_000), Options::default())
        .await
        .unwrap();
    let piece = Piece {
        key,
        size: bytes.len() as u64,
    };
    let landing = Landing {
        pieces: &[piece],
        key: &"uploads/2026/11/a.bin".parse().unwrap(),
        content_type: "application/octet-stream",
        expected: None,
        overwrite: false,
    };
    for _ in 0..2 {
        let landed = land(&place.staging, &place.storage, &landing)
            .await
            .unwrap();
        assert_eq!(
            landed,
            Landed {
                size: bytes.len() as u64,
                sha256: Sha256Digest::of(&bytes),
            }
        );
    }
    assert_eq!(
        support::stored(&place.storage, "uploads/2026/11/a.bin").await,
        bytes
    );
}
