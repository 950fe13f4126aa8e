"""Short-lived tokens for repositories (distribution, "Token Authentication Specification"): made, and verified again.

`jose` reads any JSON Web Token strictly, `keys` are those of the registry's processes, `scopes` is what clients ask
for, `access_tokens` makes and verifies. The endpoint is `registry.api.token`.
"""
