"""Formats of API keys that the issuers of the keys document, in addition to the formats in the rules of gitleaks."""

from __future__ import annotations

# Each entry has the pattern of the part of a key after the prefix, and the prefixes with this pattern. The lengths in
# the patterns are ranges, because issuers change the length of keys, and because truncated keys must also be masked.
_BODIES: tuple[tuple[str, str], ...] = (
    (
        r"[\w\-]{16,512}",
        # Repositories: GitHub, GitLab, Bitbucket and Atlassian
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ glpat- gldt- glrt- glrtr- glptt- glft- glimt- glagent- glsoat- glffct- "
        "gloas- glcbt- glwt- GR1348941 ATBB ATATT3 ATCTT3 ATSTT3 "
        # Models: OpenAI, Anthropic, Hugging Face, Groq, xAI, Perplexity, Replicate, NVIDIA, Cerebras, LangSmith, ...
        "sk-ant- sk-proj- sk-svcacct- sk-admin- sk-or-v1- sk-lf- pk-lf- sk-None- sk-cp- hf_ hf_oauth_ api_org_ gsk_ "
        "xai- pplx- r8_ nvapi- nvapi-stg- csk- fpk_ tgp_v1_ jina_ tvly- lsv2_pt_ lsv2_sk_ wandb_v1_ rpa_ pcsk_ e2b_ "
        # Hosts: DigitalOcean, Fly, Netlify, Deno, Supabase, Neon, Vercel, Heroku, Render, Cloudflare, MongoDB, ...
        "dop_v1_ doo_v1_ dor_v1_ fo1_ nfp_ nfc_ nfo_ nfu_ nfb_ ddp_ ddo_ ddw_ "
        "sbp_ sb_secret_ napi_ vcp_ vci_ vca_ vck_ "
        "HRKU- rnd_ cfut_ cfat_ cfk_ tskey-auth- tskey-api- tskey-client- mdb_sa_sk_ xau_ pscale_tkn_ pscale_pw_ "
        "pscale_oauth_ pscale_otkn_ dapi dose dkea tk-us- "
        # Delivery: CircleCI, Buildkite, Docker, npm, PyPI, RubyGems, Pulumi, Snyk, Sonar, Prefect, Postman, ...
        "CCIPAT_ CCIPRJ_ bkua_ bkat_ bkaj_ bkct_ dckr_pat_ dckr_oat_ npm_ pypi- pul- squ_ sqp_ sqa_ rubygems_ CLOJARS_ "
        "pnu_ pnb_ PMAK- PMAT- rdme_ dnkey- sgp_ sgd_ zpka_ apify_api_ "
        # Payment: Stripe, Square, Razorpay, Paddle, Checkout.com, Flutterwave, Duffel, Shippo, EasyPost, ...
        "sk_live_ sk_test_ rk_live_ rk_test_ sk_prod_ rk_prod_ whsec_ sq0atp- sq0csp- sq0idp- rzp_live_ rzp_test_ "
        "pdl_live_apikey_ pdl_sdbx_apikey_ pdl_ntfset_ sk_sbox_ FLWSECK- FLWPUBK- FLWSECK_TEST- FLWPUBK_TEST- "
        "duffel_test_ duffel_live_ shippo_live_ shippo_test_ polar_oat_ polar_whs_ EZAK EZTK "
        # Mail and messages: Brevo, Mailgun, MailerSend, Slack, ...
        "xkeysib- xsmtpsib- mlsn. xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- xwfp- "
        # Monitoring: Sentry, Grafana, New Relic, Honeycomb, Dynatrace, PostHog, Elastic, ...
        "sntryu_ sntrys_ sntryi_ glsa_ glc_ NRAK- NRII- NRJS- NRRA- NRAL- hcaik_ hcaic_ hcalk_ hcamk_ dt0c01. dt0s01. "
        "dt0s16. phx_ phs_ pddp_ ddapp_ essu_ rootly_ "
        # Secret managers: Vault, Doppler, Bitwarden, Settlemint
        "hvs. hvb. hvr. dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit. dp.ws. sm_pat_ sm_sat_ sm_aat_ "
        # Applications: Shopify, Notion, Linear, Figma, Frame.io, Contentful, HubSpot, Typeform, 42, ...
        "shpat_ shpca_ shppa_ shpss_ shptka_ shpua_ ntn_ lin_api_ lin_oauth_ figd_ figu_ figuo_ fio-u- CFPAT- pat-na1- "
        "pat-eu1- tfp_ patprd_ s-s4t2ud- s-s4t2af- AQVN LTAI AKCp AKID cmVmd oy2 p8e- ico- "
        # RFC 8959
        "secret-token:",
    ),
    (
        r"[\w\-+/=.]{20,4096}",
        "ops_eyJ ABSK fm1r_ fm1a_ fm2_ ya29. 1//0 EAAG EAAB EAAC EAAM EAAJ EAAF EAAA SG. sl. GOCSPX- xoxe.xoxb- "
        "xoxe.xoxp- "
        "eyJrIjoi bedrock-api-key- pypi-AgEIcHlwaS snyk_uat. infisical. AQEyhm vault:v1:",
    ),
)  # fmt: skip
# Formats of keys that are recognized by their prefix and length. Each entry has the prefixes and the pattern of the
# key.
FORMS: tuple[tuple[str, str], ...] = (
    ("akia asia abia acca", r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}"),
    ("aroa aida agpa anpa", r"A(?:ROA|IDA|GPA|NPA)[A-Z0-9]{16}"),
    ("aiza", r"AIza[\w\-]{35}"),
    ("k_live_ sk_live_ pk_live_ rk_live_ sk_test_ pk_test_ rk_test_", r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,120}"),
    ("sk-", r"sk-[A-Za-z0-9]{20,64}"),
    ("ac", r"AC[0-9a-f]{32}"),
    ("sk", r"SK[0-9a-f]{32}"),
    ("hf_", r"hf_[A-Za-z0-9]{30,40}"),
    ("dapi", r"dapi[0-9a-f]{32}(?:-\d)?"),
    ("age-secret-key-", r"AGE-SECRET-KEY-(?:PQ-)?1[A-Z0-9]{58,4096}"),
    ("key-", r"key-[0-9a-f]{32}"),
    ("pk.", r"pk\.eyJ[\w\-]{20,200}\.[\w\-]{20,40}"),
    ("sk.", r"sk\.eyJ[\w\-]{20,200}\.[\w\-]{20,40}"),
    ("tk.", r"tk\.eyJ[\w\-]{20,200}\.[\w\-]{20,40}"),
    ("pk_", r"pk_[0-9]{5,9}_[A-Z0-9]{32}"),  # ClickUp
    ("pat", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{60,64}"),
    ("pat-", r"pat-[a-z]{2}\d-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),  # HubSpot
    ("sdk- api- mob-", r"(?:sdk|api|mob)-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),  # LaunchDarkly
    ("hrku-", r"HRKU-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),
    ("ico-", r"ico-[A-Za-z0-9]{32}"),
    ("sg.", r"SG\.[\w\-]{16,32}\.[\w\-]{16,64}"),
    ("snyk_uat.", r"snyk_uat\.[0-9a-f]{8}\.[\w\-.]{20,400}"),
    ("access_token$", r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}"),  # Braintree
    ("amzn.mws.", r"amzn\.mws\.[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"),
    ("amzn1.oa2-cs.", r"amzn1\.oa2-cs\.v1\.[0-9a-f]{64}"),
    ("discord.com/api/webhooks/", r"discord\.com/api/webhooks/\d{15,22}/[\w\-]{50,90}"),
    ("discordapp.com/api/w", r"discordapp\.com/api/webhooks/\d{15,22}/[\w\-]{50,90}"),
    ("hooks.slack.com/serv hooks.slack.com/work hooks.slack.com/trig",
     r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/]{20,120}"),
    ("hooks.zapier.com/hoo", r"hooks\.zapier\.com/hooks/catch/\d{3,12}/\w{5,20}"),
    ("dp.", r"dp\.(?:pt|st|ct|sa|scim|audit|ws)\.(?:[\w\-]{1,40}\.)?[A-Za-z0-9]{40,44}"),  # Doppler
    ("1000.", r"1000\.[0-9a-f]{32}\.[0-9a-f]{32}"),  # Zoho
    ("st.", r"st\.[0-9a-f\-]{24,36}\.[0-9a-f]{32}\.[0-9a-f]{32}"),  # Infisical
    ("ssws", r"SSWS[ ]00[\w\-]{40}"),  # Okta
)  # fmt: skip
# Formats of keys that do not have a fixed prefix. Each entry has an RE2 pattern for the beginning of the key, and the
# pattern of the whole key.
VARIABLE_PREFIX_FORMS: tuple[tuple[str, str], ...] = (
    (r"(?:bot)?[0-9]{8,10}:AA[0-9A-Za-z_\-]", r"(?:bot)?\d{8,10}:AA[\w\-]{32,34}"),  # Telegram
    (r"[MNO][A-Za-z0-9]{23,27}\.[A-Za-z0-9_\-]{6}\.", r"[MNO][A-Za-z0-9]{23,27}\.[\w\-]{6}\.[\w\-]{27,40}"),  # Discord
    (r"[0-9a-f]{32}-us[0-9]", r"[0-9a-f]{32}-us\d{1,2}"),  # Mailchimp
    (r"[A-Za-z0-9]{76}AZDO", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}"),  # Azure DevOps
    (r"[A-Za-z0-9]{52}JQQJ99", r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}"),  # Azure
)  # fmt: skip


def bodies_by_prefix() -> dict[str, str]:
    """Return a dictionary from each prefix to the pattern of the part after the prefix."""
    return {begin: body for body, begins in _BODIES for begin in begins.split()}
