//! Tokens of the Machines API.

use hyper::Method;
use types::AppName;
use types::token::{
    AuthenticateTokens, AuthorizeToken, AuthorizedToken, CreateDeployToken, CreateToken,
    CreatedToken, CurrentTokens, DeployToken, TokenList, VerifiedToken,
};

use crate::transport::{Call, segment};
use crate::{Client, Error};

impl Client {
    /// Makes a token. Its text is in this answer and nowhere else.
    pub async fn create_token(&self, body: &CreateToken) -> Result<CreatedToken, Error> {
        self.json(&Call::post("/v1/tokens".into()).body(body)).await
    }

    /// Tokens that were made, as far as the caller may manage them.
    pub async fn tokens(&self) -> Result<TokenList, Error> {
        self.json(&Call::get("/v1/tokens".into())).await
    }

    /// Revokes a token by its id, or everything made from a block by that block's revocation id.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, format!("/v1/tokens/{}", segment(id)));
        self.send(&call).await.map(drop)
    }

    /// A token that can read, change and enter one app. `expiry` is a duration such as `8760h`;
    /// empty: a year.
    pub async fn create_deploy_token(
        &self,
        app: &AppName,
        expiry: &str,
    ) -> Result<DeployToken, Error> {
        let body = CreateDeployToken {
            expiry: expiry.to_owned(),
        };
        let call = Call::post(format!("/v1/apps/{app}/deploy_token")).body(&body);
        self.json(&call).await
    }

    /// What this client's own tokens are.
    pub async fn current_tokens(&self) -> Result<CurrentTokens, Error> {
        self.json(&Call::get("/v1/tokens/current".into())).await
    }

    /// Which tokens of an `Authorization` header are good.
    pub async fn authenticate(
        &self,
        body: &AuthenticateTokens,
    ) -> Result<Vec<VerifiedToken>, Error> {
        let call = Call::post("/v1/tokens/authenticate".into()).body(body);
        self.json(&call).await
    }

    /// Whether the tokens of a header allow something.
    pub async fn authorize(&self, body: &AuthorizeToken) -> Result<AuthorizedToken, Error> {
        let call = Call::post("/v1/tokens/authorize".into()).body(body);
        self.json(&call).await
    }
}
