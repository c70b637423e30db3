# What a job may do: with the login of `vault://secret/ci/codex`, and with nothing else.

# Read the login, and swap the next one in. It cannot create the first one.
path "secret/data/ci/codex" {
  capabilities = ["read", "update"]
}

# The claim beside it, which the first job to want one creates.
path "secret/data/ci/codex-claim" {
  capabilities = ["create", "read", "update"]
}

# Whether the server keeps what a swap replaces: the setting of the secret, else of the mount.
# Without these two lines the job keeps a copy in the rescue folder instead.
path "secret/metadata/ci/codex" {
  capabilities = ["read"]
}

path "secret/config" {
  capabilities = ["read"]
}

# Keep the job's token while the job lasts.
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# End it with the job.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Tell a token that has ended from a right that is missing.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
