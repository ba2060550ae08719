//! Tokens, and the one question that needs none.

use types::api::Ok as Done;
use types::token::{
    AuthenticateTokens, AuthorizeToken, AuthorizedToken, CreateDeployToken, CreateToken,
    CreatedToken, CurrentTokens, DeployToken, TokenList, VerifiedToken,
};

use super::super::tokens;
use super::route::{Route, delete, get, post};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/health", "Whether this host answers", tokens::health).gives::<Done>(),
        get("/v1/health", "Whether this host answers", tokens::health).gives::<Done>(),
        get("/v1/tokens", "Tokens that were made", tokens::list).gives::<TokenList>(),
        post("/v1/tokens", "Makes a token", tokens::create)
            .takes::<CreateToken>()
            .creates::<CreatedToken>(),
        delete(
            "/v1/tokens/{id}",
            "Revokes a token, or what was made from a block of one",
            tokens::revoke,
        )
        .says_nothing(),
        get(
            "/v1/tokens/current",
            "The tokens of this request",
            tokens::current,
        )
        .gives::<CurrentTokens>(),
        post(
            "/v1/tokens/authenticate",
            "Which tokens of a header are good",
            tokens::authenticate,
        )
        .takes::<AuthenticateTokens>()
        .gives::<Vec<VerifiedToken>>(),
        post(
            "/v1/tokens/authorize",
            "Whether the tokens of a header allow something",
            tokens::authorize,
        )
        .takes::<AuthorizeToken>()
        .gives::<AuthorizedToken>(),
        post(
            "/v1/apps/{app}/deploy_token",
            "Makes a token for one app",
            tokens::deploy,
        )
        .takes::<CreateDeployToken>()
        .gives::<DeployToken>(),
    ]
}
