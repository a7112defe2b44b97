"""Where servers of different kinds answer one client differently, and why.

Through a gateway in front of both, a client may see either. Any difference of status, error code or body that
is not listed here fails the run: it would be a new trap for those who mix these servers.

By client and beginning of the step's name. What differs in headers alone is not listed: RGW sends
`accept-ranges`, `x-rgw-object-type` and a default Content-Type, s3s-fs sends the checksums that it was given;
RGW returns metadata in raw UTF-8 as it is, s3s-fs encodes it (RFC 2047); the ETag of a
CompleteMultipartUpload is empty at RGW.
"""

REASONS = {
    ("s3cmd", "head"): "s3cmd also asks for policy, CORS and ACL, none of which s3s-fs knows (501)",
    ("s3cmd", "copy"): "s3cmd copies the ACL, too: s3s-fs knows none (501), and the gateway records that it missed it",
    ("rclone", "get past the end"): "rclone asks for a range that ends before it begins: 416 at RGW, 400 at s3s-fs",
}


def reason(client, step):
    return next((why for (who, what), why in REASONS.items() if who == client and step.startswith(what)), None)
