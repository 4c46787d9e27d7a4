-- Run by the image once, as the superuser, in POSTGRES_DB.
create extension vector;
create extension funnelvec;
