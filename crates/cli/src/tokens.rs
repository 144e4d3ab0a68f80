//! `evenkeel token`: makes, lists and ends tokens.

use api::client::Client;
use api::{Role, TokenRequest};

use crate::args::{RoleName, TokenCommand};
use crate::screen::Screen;
use crate::show;

/// Does what is wanted of tokens.
///
/// # Errors
///
/// When the agent says no or cannot be asked, or standard output cannot be written.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    what: TokenCommand,
) -> anyhow::Result<()> {
    match what {
        TokenCommand::Create { role, name, days } => {
            let role = match role {
                RoleName::Viewer => Role::Viewer,
                RoleName::Operator => Role::Operator,
                RoleName::Admin => Role::Admin,
            };
            let made = client.make_token(&TokenRequest { name, role, days }).await?;
            screen.show(&made, |made, _| show::token_made(made))
        }
        TokenCommand::List => {
            screen.show(&client.tokens().await?, |tokens, look| show::tokens(tokens, look))
        }
        TokenCommand::Revoke { id } => {
            screen.show(&client.revoke_token(&id).await?, |token, _| show::token_revoked(token))
        }
    }
}
