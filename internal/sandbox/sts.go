package sandbox

import (
	"encoding/xml"
	"net/http"
	"net/url"
	"strings"
)

const stsNS = "https://sts.amazonaws.com/doc/2011-06-15/"

// identity is who every caller of the sandbox is.
const identity = "arn:aws:sts::" + AccountID + ":assumed-role/sandbox/tfguard"

// serveSTS answers a POST of a form to "/". Only GetCallerIdentity is there;
// IAM calls, which look the same, are refused too.
func (s *Server) serveSTS(w http.ResponseWriter, r *http.Request, id string) {
	h := w.Header()
	h.Set("x-amzn-RequestId", id)
	h.Set("Content-Type", "text/xml")
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	var form url.Values
	if err := r.ParseForm(); err == nil {
		form = r.PostForm
	}
	name := "Unknown"
	if form.Get("Action") == "GetCallerIdentity" {
		name = "GetCallerIdentity"
	}
	s.count(r, "sts:"+name)
	fail := func(status int, code, message string) {
		type stsError struct{ Type, Code, Message string }
		writeXML(w, status, struct {
			XMLName   xml.Name `xml:"ErrorResponse"`
			NS        string   `xml:"xmlns,attr"`
			Error     stsError
			RequestId string
		}{NS: stsNS, Error: stsError{"Sender", code, message}, RequestId: id})
	}
	switch {
	case !strings.Contains(r.Header.Get("Authorization"), "Credential=") && r.Form.Get("X-Amz-Credential") == "":
		fail(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	case name == "Unknown":
		fail(http.StatusBadRequest, "InvalidAction", "Could not find operation "+form.Get("Action")+": the sandbox has only GetCallerIdentity")
	default:
		type result struct{ Arn, UserId, Account string }
		writeXML(w, http.StatusOK, struct {
			XMLName   xml.Name `xml:"GetCallerIdentityResponse"`
			NS        string   `xml:"xmlns,attr"`
			Result    result   `xml:"GetCallerIdentityResult"`
			RequestId string   `xml:"ResponseMetadata>RequestId"`
		}{NS: stsNS, Result: result{identity, "AROASANDBOXTFGUARD00:tfguard", AccountID}, RequestId: id})
	}
}

func writeXML(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	_, _ = w.Write(document(v))
}
