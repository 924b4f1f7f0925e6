--
-- PostgreSQL database cluster dump
--

\restrict ndQgewYYD0wdbFaJxAScweX4DkhJav9GpECPf2TKsgnuXajdPTml9hQuUbrz9Py

SET default_transaction_read_only = off;

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;

--
-- Roles
--

CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION BYPASSRLS PASSWORD 'SCRAM-SHA-256$4096:ODJCkFKP4juCunZYrLLCsg==$kmtoV1UjhD4Q28wL6wbWpd37Ebf36+K5HeNBiuT0Sz4=:kbne5MTKGAQcjNYIiBlmI/W0CIkZWl5sa4AwdIzCRfE=';

--
-- User Configurations
--








\unrestrict ndQgewYYD0wdbFaJxAScweX4DkhJav9GpECPf2TKsgnuXajdPTml9hQuUbrz9Py

--
-- PostgreSQL database cluster dump complete
--

