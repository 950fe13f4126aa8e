"""Who somebody is: passwords, secrets, issuers' tokens and certificates become a `Principal`.

What the principal may do is `registry.access`; what is given for credentials at `/token` is `registry.tokens`.
`registry.authenticate` puts the parts together.
"""
