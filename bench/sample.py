"""One file after the other, as the AWS sample does it: paramiko reads, boto3 uploads what it reads. Written for the bench."""

import os

import boto3
import paramiko

client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(
    "127.0.0.1",
    port=int(os.environ["SFTP_PORT"]),
    username=os.environ["SFTP_USER"],
    key_filename=os.environ["SFTP_KEY_FILE"],
)
sftp = client.open_sftp()
s3 = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
directory = os.environ["SFTP_DIRECTORY_PATH"]
for name in sftp.listdir(directory):
    with sftp.open(f"{directory}/{name}") as source:
        s3.upload_fileobj(source, os.environ["BUCKET"], name)
client.close()
