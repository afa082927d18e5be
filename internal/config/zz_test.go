package config
import ("testing";"time";"strings")
func TestZZ(t *testing.T){
 for _,s:=range []string{"terraform {\n vars = {a = 1e9999999}\n}","terraform {\n vars = {a = \"${1e9999999}\"}\n}","terraform {\n parallelism = 1e999999999\n}", "terraform {\n bin = \"" + strings.Repeat("${1}",200000)+"\"\n}", "terraform {\n bin = \"" + strings.Repeat("\\u0041",100000)+"\"\n}", strings.Repeat("a{}\n",200000), "terraform {\n vars = {"+strings.Repeat("a=1,",200000)+"}\n}","terraform {\n"+strings.Repeat("bin=1\n",100000)+"}","terraform {\n bin = "+strings.Repeat("1+",1000)+"1\n}","terraform {\n bin = "+strings.Repeat("a.",100000)+"1\n}", "terraform {\n bin = "+strings.Repeat("<<A\n",100000)+"1\n}"}{
  st:=time.Now(); _,err:=parse("x",[]byte(s)); e:=""; if err!=nil {e=err.Error(); if len(e)>100 {e=e[:100]}}
  t.Logf("%.40q %s %s",s,time.Since(st),e)
 }
}
