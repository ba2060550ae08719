//! Secrets of apps.

use types::secret::{
    AppSecret, AppSecretList, DeletedSecret, RotatedKey, SetSecret, SetSecretAnswer, UpdateSecrets,
    UpdatedSecrets,
};

use super::super::secrets;
use super::route::{Parameter, Route, delete, get, post};

const QUERY: &[Parameter] = &[
    ("min_version", "Waits until this version is there"),
    ("show_secrets", "With values; needs a token that allows it"),
];

pub(super) fn routes() -> Vec<Route> {
    let (all, one) = ("/v1/apps/{app}/secrets", "/v1/apps/{app}/secrets/{name}");
    vec![
        get(all, "Secrets, by name", secrets::list)
            .query(QUERY)
            .gives::<AppSecretList>(),
        post(
            all,
            "Sets and removes secrets, as one change",
            secrets::update,
        )
        .takes::<UpdateSecrets>()
        .gives::<UpdatedSecrets>(),
        get(one, "A secret", secrets::get)
            .query(QUERY)
            .gives::<AppSecret>(),
        post(one, "Sets a secret", secrets::set)
            .takes::<SetSecret>()
            .creates::<SetSecretAnswer>(),
        delete(one, "Removes a secret", secrets::delete).gives::<DeletedSecret>(),
        post(
            "/v1/secrets/rotate_key",
            "Seals every secret with a new key",
            secrets::rotate_key,
        )
        .gives::<RotatedKey>(),
    ]
}
