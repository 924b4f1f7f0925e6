--
-- PostgreSQL database dump
--

\restrict RpSLDIdtc5hHaf2A66pcjTQv8mM5mNBVg9MBVnK1GbKRUNdoxlzPt8TXYCrP5NQ

-- Dumped from database version 17.12 (Debian 17.12-0+deb13u1)
-- Dumped by pg_dump version 17.12 (Debian 17.12-0+deb13u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: s; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA s;


ALTER SCHEMA s OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: t; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.t (
    a integer NOT NULL,
    v text
);


ALTER TABLE s.t OWNER TO postgres;

--
-- Name: TABLE t; Type: COMMENT; Schema: s; Owner: postgres
--

COMMENT ON TABLE s.t IS 'it''s';


--
-- Name: t_a_seq; Type: SEQUENCE; Schema: s; Owner: postgres
--

CREATE SEQUENCE s.t_a_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER SEQUENCE s.t_a_seq OWNER TO postgres;

--
-- Name: t_a_seq; Type: SEQUENCE OWNED BY; Schema: s; Owner: postgres
--

ALTER SEQUENCE s.t_a_seq OWNED BY s.t.a;


--
-- Name: u; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.u (
    a integer
);


ALTER TABLE s.u OWNER TO postgres;

--
-- Name: v; Type: VIEW; Schema: s; Owner: postgres
--

CREATE VIEW s.v AS
 SELECT a
   FROM s.t;


ALTER VIEW s.v OWNER TO postgres;

--
-- Name: t a; Type: DEFAULT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.t ALTER COLUMN a SET DEFAULT nextval('s.t_a_seq'::regclass);


--
-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.t (a, v) FROM stdin;
1	row 1
2	row 2
3	row 3
4	row 4
5	row 5
6	\N
7	\t\n\\
\.


--
-- Data for Name: u; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.u (a) FROM stdin;
\.


--
-- Name: t_a_seq; Type: SEQUENCE SET; Schema: s; Owner: postgres
--

SELECT pg_catalog.setval('s.t_a_seq', 7, true);


--
-- Name: 77; Type: BLOB METADATA; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('77');

ALTER LARGE OBJECT 77 OWNER TO postgres;

--
-- Data for Name: 77; Type: BLOBS; Schema: -; Owner: postgres
--

BEGIN;

SELECT pg_catalog.lo_open('77', 131072);
SELECT pg_catalog.lowrite(0, '\x616263');
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: t t_pkey; Type: CONSTRAINT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.t
    ADD CONSTRAINT t_pkey PRIMARY KEY (a);


--
-- Name: u u_a_fkey; Type: FK CONSTRAINT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.u
    ADD CONSTRAINT u_a_fkey FOREIGN KEY (a) REFERENCES s.t(a);


--
-- Name: TABLE t; Type: ACL; Schema: s; Owner: postgres
--

GRANT SELECT ON TABLE s.t TO PUBLIC;


--
-- PostgreSQL database dump complete
--

\unrestrict RpSLDIdtc5hHaf2A66pcjTQv8mM5mNBVg9MBVnK1GbKRUNdoxlzPt8TXYCrP5NQ

