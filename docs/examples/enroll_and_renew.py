import asyncio
import sys

from est_client import (
    EstClient,
    FileKeyStore,
    TrustDatabase,
    connector_for,
    enroll_device,
    renew_device,
)


async def main(url, ca_file, directory):
    store = FileKeyStore(directory)  # a crash leaves the old identity or the new, never half
    trust = TrustDatabase.load(ca_file)
    async with EstClient(connector_for(url), trust=trust) as client:
        certificate = await enroll_device(client, store)
        print("enrolled as", certificate.subject.rfc4514_string())
        certificate = await renew_device(client, store)
        print("renewed until", certificate.not_valid_after_utc)


asyncio.run(main(*sys.argv[1:]))
